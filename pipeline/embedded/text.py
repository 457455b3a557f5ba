"""Sentences for the embedded corpus, written by this project and free to use.

A small grammar of everyday English over some seven hundred words. A grammar rather than a book,
because a teacher of five million weights can master its vocabulary, and because sentences can be
drawn without end, so that those of the test part occur nowhere else.
"""

import random
import re

GRAMMAR: dict[str, str] = {
    "sentence": "{clause}. | {clause}. | {clause}, {join} {tail}. | {opening}, {clause}. | {opening}, "
    "{clause}, {join} {tail}. | {question}? | {order}. | {report}. | {count}. | {said}.",
    "clause": "{subject} {acts} | {subject} {acts} {where} | {subject} {acts} {when} | {subject} {motion} "
    "{where} | {subject} {motion} {where} {when} | {subject} {feels} | {thing} {state} | {thing} {state} {where} "
    "| {weather} | {subject} {manner} {acts}",
    "tail": "{pronoun} {acts} | {subject} {motion} {where} | {thing} {state} | {weather} | {pronoun} {feels}",
    "join": "and | but | because | so | while | although | until",
    "opening": "{day_time} | last {season} | after {meal} | before {meal} | in the {season} | "
    "a long time ago | as usual | to my surprise | every {day} | on {day} {part} | at {hour} o'clock",
    "question": "where did {subject} leave {object} | why was {thing} so {quality} | when will {subject} "
    "{verb} {object} | did {subject} really {verb} {object} {where} | how many {plural} can {subject} {verb} "
    "| who wanted to {verb} {object} | have you ever seen {a_animal} {where} | could you {verb} {object}",
    "order": "please {verb} {object} {where} | do not {verb} {object} before {meal} | remember to {verb} "
    "{object} {when} | take {object} and {verb} it {where} | never {verb} {a_animal} {where} | "
    "turn {side} at the {building} and walk {where} | call {name} at {hour} o'clock | "
    "mix the {food} with the {food} and {cook} it for {number} minutes",
    "report": "{place} is {number} miles from {place} | the price of {food} rose by {number} percent | "
    "the {vehicle} to {place} leaves at {hour} {minute} | {name} was born in {place} in {month} | "
    "about {number} thousand people live near {place} | the {building} opens at {hour} and closes at {hour} | "
    "scientists in {place} found {number} new kinds of {plural_animal} | "
    "{name} and {name} won the {event} in {place} by {number} points | the {event} starts on {day} at {hour}",
    "count": "{subject} {bought} {number} {plural} and {number} {plural} | there were {number} {plural} {where} | "
    "we need {number} {plural}, {number} {plural} and {number} {plural} | {number} of the {plural} were {quality} | "
    "{subject} counted {number} {plural_animal} {where}",
    "said": "{name} said that {thing} was {quality} | the {person} told us that {subject} {acts} | "
    "{name} asked whether {thing} was {quality} | they say that {weather} | my {relative} believes that {subject} "
    "{motion} {where} | nobody knew why {subject} {acts} | everybody hoped that {thing} {state}",
    "subject": "the {person} | the {person} | the {adjective} {person} | my {relative} | her {relative} | our "
    "{relative} | {name} | {name} | {name} and {name} | two {adjective} {people} | the {people} | {a_person} | "
    "the {adjective} {animal} | his {animal} | one of the {people} | the {person} from {place}",
    "a_person": "a young {person} | an old {person} | a {adjective_c} {person} | another {person}",
    "a_animal": "a wild {animal} | a {adjective_c} {animal} | an enormous {animal} | such a strange {animal}",
    "thing": "the {noun} | the {noun} | the {adjective} {noun} | my {noun} | their {noun} | this {noun} | "
    "the {noun} from {place} | the {person}'s {noun} | the {food}",
    "object": "the {noun} | the {adjective} {noun} | a {adjective_c} {noun} | her {noun} | his {adjective} {noun} | "
    "some {food} | the {plural} | {number} {plural} | a basket of {plural_food} | the {person}'s {noun} | "
    "a piece of {material} | a box of {plural}",
    "pronoun": "he | she | they | we | I | you",
    "acts": "{past} {object} | {past} {object} | {past} {object} and {past} {object} | could not {verb} {object} | "
    "wanted to {verb} {object} | forgot to {verb} {object} | had already {past} {object} | would often {verb} {object} | "
    "tried to {verb} {object} with {a_tool} | {past} {object} for the {person} | {gave} the {person} {object}",
    "a_tool": "a hammer | a rope | a knife | a needle | a broom | a ladder | a spoon | both hands | great care | an axe",
    "gave": "gave | showed | offered | sold | lent | promised | brought",
    "bought": "bought | sold | ordered | collected | borrowed | needed",
    "motion": "walked | drove | hurried | travelled | wandered | ran | climbed | sailed | marched | returned | slept | "
    "waited | danced | sat quietly | worked | rested | got lost | stood | lived | arrived late",
    "feels": "felt {feeling} | was {feeling} | seemed {feeling} {when} | was too {feeling} to {verb} {object} | "
    "looked {feeling} and {feeling} | became {feeling}",
    "state": "was {quality} | looked {quality} | was {quality} and {quality} | had been {quality} for {number} {units} | "
    "stayed {quality} | was more {quality} than ever | smelled of {food} | fell on the floor | stood {where} | "
    "was made of {material} | is {quality} | will be {quality} {when} | cost {number} dollars",
    "weather": "it was {sky} | the rain stopped {when} | the wind blew from the {compass} | snow fell {where} | "
    "the sun was shining {where} | it will be {sky} {when} | a {adjective_c} storm moved {compass} | "
    "the temperature dropped to {number} degrees | thick fog covered the {nature} | there was thunder over the {nature}",
    "where": "{near} the {nature} | {near} the {building} | {near} the {room} | in {place} | to the {building} | "
    "through the {nature} | across the {nature} | {near} the {adjective} {building} | at home | on the {side} side | "
    "along the {nature} | {compass} of the {nature} | between the {building} and the {nature}",
    "near": "near | behind | beside | in | outside | above | below | around | in front of",
    "when": "{day_time} | on {day} | in {month} | before {meal} | after {meal} | at midnight | for {number} {units} | "
    "every {part} | at {hour} o'clock | since {month} | {number} {units} ago | during the {event}",
    "day_time": "yesterday | today | tonight | tomorrow {part} | this {part} | early in the {part} | last night | "
    "last {day} | next {day} | late on {day}",
    "manner": "quickly | slowly | carefully | suddenly | quietly | finally | almost | usually | never | always | "
    "secretly | happily | gently | once | still | proudly",
    "name": "Anna | Peter | Maria | Thomas | Helen | Daniel | Sarah | Victor | Emma | Oliver | Laura | George | Alice | "
    "Martin | Sophie | Henry | Julia | Robert | Nina | Samuel | Clara | Walter | Diana | Frank",
    "person": "teacher | farmer | doctor | baker | sailor | painter | driver | lawyer | gardener | soldier | nurse | "
    "student | captain | singer | waiter | butcher | tailor | writer | judge | hunter | fisherman | engineer | "
    "musician | stranger | neighbour | shopkeeper | carpenter | detective | visitor | king | queen | boy | girl | "
    "woman | man | child | librarian | mechanic | pilot | scientist | mayor | thief | widow | guest",
    "people": "women | men | children | brothers | sisters | teachers | farmers | sailors | students | soldiers | boys | "
    "girls | guests | strangers | neighbours | tourists | workers | musicians | friends | cousins",
    "relative": "mother | father | sister | brother | uncle | aunt | cousin | grandfather | grandmother | daughter | son | "
    "wife | husband | nephew | niece | friend",
    "animal": "dog | cat | horse | cow | sheep | goat | donkey | fox | wolf | bear | rabbit | mouse | eagle | owl | "
    "duck | goose | chicken | pig | lion | tiger | elephant | monkey | camel | snake | turtle | frog | squirrel",
    "plural_animal": "dogs | cats | horses | cows | goats | foxes | wolves | rabbits | birds | ducks | chickens | "
    "monkeys | snakes | turtles | frogs | bees | butterflies | spiders | whales | beetles",
    "noun": "book | letter | window | door | table | chair | lamp | clock | mirror | bottle | picture | knife | bag | "
    "coat | hat | shirt | shoe | key | coin | ring | candle | blanket | carpet | piano | guitar | violin | drum | "
    "camera | telephone | computer | radio | newspaper | map | ticket | wallet | umbrella | bicycle | wheel | engine | "
    "boat | wagon | ladder | hammer | basket | bucket | rope | fence | roof | garden | stone | branch | flower | "
    "leaf | tree | bridge | road | wall | stove | kettle | cup | plate | pencil | painting | statue | story | song | "
    "question | answer | secret | promise | plan | dream | machine | tower | necklace | pillow | suitcase | jacket | "
    "button | box | bell | flag | present | package | notebook | medicine",
    "plural": "books | letters | windows | chairs | lamps | bottles | pictures | knives | coats | hats | shirts | "
    "shoes | keys | coins | candles | blankets | tickets | bicycles | boats | baskets | stones | flowers | leaves | "
    "trees | bridges | cups | plates | pencils | stories | songs | questions | apples | oranges | eggs | potatoes | "
    "boxes | nails | buttons | stamps | cameras | ropes | bricks | pages | mistakes",
    "plural_food": "apples | oranges | cherries | plums | grapes | onions | carrots | tomatoes | mushrooms | lemons | "
    "nuts | berries | peas | beans",
    "food": "bread | butter | cheese | rice | soup | meat | fish | honey | salt | sugar | milk | coffee | tea | "
    "flour | pepper | chocolate | garlic | oil | vinegar | cream | jam",
    "material": "wood | iron | paper | glass | silver | gold | leather | cotton | wool | copper | marble | plastic",
    "cook": "boil | bake | stir | fry | cool",
    "past": "found | lost | bought | sold | broke | repaired | painted | carried | washed | opened | closed | hid | "
    "moved | dropped | pushed | pulled | cleaned | examined | followed | remembered | watched | touched | stole | "
    "wrapped | delivered | noticed | measured | filled | covered | borrowed | returned | kept | described | cut | "
    "lifted | counted | burned | polished | ignored | admired | received | photographed | threw away | picked up | "
    "asked for | looked for | thought about | talked about",
    "verb": "find | lose | buy | sell | break | repair | paint | carry | wash | open | close | hide | move | drop | push | "
    "pull | clean | examine | follow | remember | watch | touch | steal | wrap | deliver | notice | measure | fill | "
    "cover | borrow | return | keep | describe | cut | lift | count | burn | polish | ignore | admire | receive | "
    "photograph | throw away | pick up | ask for | look for | think about | talk about",
    "adjective": "{adjective_c} | old | empty | ugly | expensive | ordinary | unusual | orange | elegant | ancient",
    "adjective_c": "new | small | large | big | little | beautiful | heavy | light | broken | clean | dirty | red | blue | "
    "green | yellow | black | white | brown | grey | long | short | round | strange | famous | cheap | wooden | "
    "golden | silent | narrow | wide | dark | bright | clever | friendly | hungry | lazy | brave | nervous | polite | "
    "quiet | rich | poor | tall | tired | young | purple | gentle | modern | simple | lovely | tiny",
    "quality": "broken | empty | heavy | clean | dirty | expensive | cheap | useful | beautiful | strange | wet | dry | "
    "warm | cold | hot | ready | missing | open | closed | full | dangerous | perfect | quiet | loud | dark | bright | "
    "important | difficult | easy | wonderful | terrible | smooth | sharp | soft | hard | sweet | sour | fresh | "
    "valuable | comfortable | impossible | late | wrong | safe | true",
    "feeling": "happy | sad | angry | tired | hungry | thirsty | afraid | proud | lonely | bored | nervous | calm | "
    "excited | surprised | jealous | sick | grateful | curious | ashamed | cheerful | worried | confused | sleepy",
    "sky": "cloudy | sunny | windy | stormy | foggy | freezing | very hot | quite warm | rather cool | dark | misty",
    "nature": "river | lake | forest | mountain | valley | beach | island | desert | hill | field | meadow | coast | "
    "ocean | cave | canyon | waterfall | jungle | harbour | park | village | city | street | path | marsh",
    "building": "house | school | church | hospital | library | museum | station | factory | castle | theatre | market | "
    "hotel | bakery | bank | office | prison | airport | farm | restaurant | post office | temple | palace | cottage | "
    "barn | lighthouse | cinema | supermarket | stadium | university | mill",
    "room": "kitchen | bedroom | cellar | attic | garage | hall | balcony | stairs | bathroom | workshop | fireplace | "
    "cupboard | corner | gate",
    "place": "London | Paris | Rome | Berlin | Madrid | Vienna | Boston | Chicago | Dublin | Oxford | Egypt | India | "
    "China | Japan | Canada | Brazil | Norway | Scotland | Africa | America | Texas | Mexico | Moscow | Sydney",
    "vehicle": "train | bus | ship | plane | ferry | boat | coach | taxi",
    "event": "war | concert | party | wedding | festival | race | match | meeting | storm | holiday | parade | exam | "
    "election | game | lesson",
    "meal": "breakfast | lunch | dinner | supper | work | school | the meeting | the concert | sunrise | sunset",
    "season": "spring | summer | autumn | winter | week | month | year",
    "day": "Monday | Tuesday | Wednesday | Thursday | Friday | Saturday | Sunday",
    "part": "morning | afternoon | evening | night",
    "month": "January | February | March | April | May | June | July | August | September | October | November | December",
    "compass": "north | south | east | west",
    "side": "left | right",
    "units": "minutes | hours | days | weeks | months | years",
    "number": "two | three | four | five | six | seven | eight | nine | ten | eleven | twelve | fifteen | sixteen | "
    "eighteen | twenty | thirty | forty | fifty | sixty | seventy | eighty | ninety | a hundred | two hundred | "
    "twenty five | thirty six | forty eight | fifty two | ninety nine",
    "hour": "one | two | three | four | five | six | seven | eight | nine | ten | eleven | twelve",
    "minute": "fifteen | thirty | forty five | twenty | ten | fifty",
}
_ALTERNATIVES = {name: [a.strip() for a in rule.split(" | ")] for name, rule in GRAMMAR.items()}
_SLOT = re.compile(r"\{(\w+)\}")


def sentence(rng: random.Random) -> str:
    """Draw one sentence with capital letter and final punctuation."""
    text = _expand("sentence", rng)
    return text[0].upper() + text[1:]


def _expand(rule: str, rng: random.Random) -> str:
    return _SLOT.sub(lambda slot: _expand(slot[1], rng), rng.choice(_ALTERNATIVES[rule]))


def sentences(count: int, seed: int, min_words: int, max_words: int) -> list[str]:
    """Draw `count` different sentences of the given lengths, the same for the same seed."""
    rng = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        text = sentence(rng)
        if min_words <= len(text.split()) <= max_words:
            found[text] = None
    return list(found)


def vocabulary() -> set[str]:
    """Return every word that the grammar can say, in lower case."""
    rules = _SLOT.sub(" ", " ".join(GRAMMAR.values()))
    return set(re.findall(r"[a-z']+", rules.lower()))
