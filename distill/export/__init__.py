"""A trained model in the formats of other runtimes, each checked by listening to it."""
