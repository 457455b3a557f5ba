"""What went wrong in the code of the papers, and the tests that hold it off here.

Two reference implementations were read: the scripts of Distil-Whisper (huggingface/distil-whisper
at cc96130) and the code of DQ-Whisper (talkking/DQ-Whisper at dd82afc). Each line says where the
defect is, what it does, and which tests would fail if it came in here. What is not listed concerns
neither labelling nor training here: Flax, argument parsing, the Hub of years ago.
"""

import re
from pathlib import Path

import pytest

DISTIL_WHISPER = {
    "run_pseudo_labelling.py:861, a crash loses all labels": [
        "pipeline/test_blocks.py::test_committed_block_is_not_touched_again",
        "pipeline/test_faults.py::test_killed_anywhere_the_next_run_finishes_the_same_dataset",
    ],
    "run_pseudo_labelling.py:886, a split with a dot fails after hours": [
        "pipeline/test_config.py::test_corpus_that_cannot_work_is_refused",
    ],
    "run_pseudo_labelling.py:790, an empty reference shifts labels against ids": [
        "pipeline/test_blocks.py::test_clip_without_reference_has_no_score",
        "pipeline/test_blocks.py::test_labelled_clips_become_ledger_rows_in_corpus_order",
    ],
    "run_pseudo_labelling.py:961, token ids are written instead of text": [
        "pipeline/test_teacher.py::test_label_has_text_tokens_and_segments_without_prefix",
    ],
    "run_pseudo_labelling.py:903, the last lines are written twice": [
        "pipeline/test_run.py::test_every_planned_utterance_ends_as_exactly_one_thing",
    ],
    "run_pseudo_labelling.py:978, every clip is prompted with the one before, whoever speaks": [
        "pipeline/test_blocks.py::test_previous_label_is_that_of_the_span_before_in_the_recording",
        "pipeline/test_packed_blocks.py::test_a_dropped_clip_is_no_prompt",
    ],
    "run_pseudo_labelling.py:982, start-of-previous stands twice": [
        "distill/test_targets.py::test_start_of_previous_appears_once",
    ],
    "run_pseudo_labelling.py:814, a label that was cut off teaches to stop early": [
        "pipeline/test_teacher.py::test_label_that_hits_the_token_limit_is_truncated",
        "distill/test_upstream_defects.py::test_a_label_that_was_cut_off_does_not_teach_to_stop_early",
    ],
    "run_pseudo_labelling.py:912, all labels are written again at every step": [
        "pipeline/test_run.py::test_new_line_in_a_manifest_only_costs_its_block",
    ],
    "run_pseudo_labelling.py:716, features of the whole corpus lie on the disk": [
        "test_contract.py::test_plain_webdataset_reads_the_shard",
    ],
    "run_pseudo_labelling.py:655, unknown speakers are packed together": [
        "pipeline/test_clips.py::test_an_unknown_speaker_shares_a_clip_within_a_recording_only",
    ],
    "run_pseudo_labelling.py:650, a batch of damaged files stops the run": [
        "pipeline/test_blocks.py::test_bad_clip_fails_alone_and_its_batch_is_labelled",
        "pipeline/test_ledger.py::test_a_block_in_which_everything_failed_has_a_part_without_rows",
    ],
    "run_pseudo_labelling.py:521, audio without references is refused": [
        "pipeline/corpora/test_manifest.py::test_corpus_without_references_needs_no_text",
    ],
    "run_pseudo_labelling.py:611, `en` is normalised as if it were not English": [
        "pipeline/test_scoring.py::test_english_has_many_names",
        "pipeline/test_scoring.py::test_english_is_normalised_as_whisper_does",
    ],
    "run_pseudo_labelling.py, long recordings are cut off at 30 s": [
        "pipeline/test_clips.py::test_a_long_utterance_is_cut_where_the_voice_pauses",
    ],
    "transformers from 4.48 on gives labels without a prefix, and text is cut instead": [
        "pipeline/test_teacher.py::test_label_has_text_tokens_and_segments_without_prefix",
        "distill/test_targets.py::test_a_plain_target_is_the_task_the_text_and_the_end",
    ],
    "create_student_model.py, negative layers are not copied": [
        "distill/test_student.py::test_layers_may_be_listed_from_either_end",
        "distill/test_student.py::test_layers_the_teacher_lacks_are_refused_not_left_uncopied",
    ],
    "create_student_model.py, alignment heads of layers that are gone": [
        "distill/test_student.py::test_a_student_gives_word_timestamps",
        "distill/test_alignment_heads.py::"
        "test_a_trained_student_has_the_heads_that_its_own_attention_shows",
    ],
    "run_distillation.py:1478, the teacher of a prompted clip is given other inputs": [
        "distill/test_trainer.py::test_the_teacher_is_given_the_decoder_inputs_of_the_student",
    ],
    "run_distillation.py:1493, the weight of the cross-entropy is fixed": [
        "distill/test_losses.py::test_presets_fill_what_is_not_given",
        "distill/test_trainer.py::test_the_loss_is_what_the_library_and_the_formula_give",
    ],
    "run_distillation.py:1422, every target is padded to 448": [
        "distill/test_upstream_defects.py::"
        "test_targets_are_padded_to_the_longest_of_their_batch_and_not_to_448",
    ],
    "run_distillation.py:1453, logits of padding are computed": [
        "distill/test_upstream_defects.py::"
        "test_masked_positions_are_dropped_before_the_vocabulary_projection",
        "distill/test_projection.py::test_logits_never_exist_for_more_than_a_chunk",
    ],
    "run_distillation.py:1112, error rates are computed anew for every clip": [
        "distill/test_data.py::test_a_filter_at_reading_leaves_clips_out_and_shards_as_they_are",
    ],
    "run_distillation.py:1141, scripts without capitals count as shouting": [
        "distill/test_upstream_defects.py::test_scripts_without_capitals_pass_the_filter",
        "pipeline/test_filters.py::test_an_acronym_or_a_script_without_case_is_not_shouting",
    ],
    "run_distillation.py:1193, timestamps and prompts are drawn once for all epochs": [
        "distill/test_upstream_defects.py::"
        "test_timestamps_and_prompts_are_drawn_anew_in_every_epoch",
        "distill/test_data.py::test_random_choices_of_a_clip_do_not_depend_on_the_processes",
    ],
    "run_distillation.py:1204, a prompt with special tokens is trained on": [
        "distill/test_upstream_defects.py::"
        "test_a_prompt_that_holds_special_tokens_is_masked_to_its_end",
        "distill/test_targets.py::test_the_prompt_is_masked_up_to_and_including_the_start_token",
    ],
    "run_distillation.py:1218, a target of 447 tokens is not trimmed and then left out": [
        "distill/test_targets.py::test_a_target_may_fill_all_448_positions",
        "distill/test_targets.py::test_a_prompt_gives_way_to_the_text",
    ],
    "run_distillation.py:1276, clips of exactly 30 s are left out": [
        "distill/test_data.py::test_a_clip_of_exactly_30_seconds_is_kept_whole",
        "pipeline/test_clips.py::test_exactly_thirty_seconds_is_a_clip",
    ],
    "run_distillation.py:1572, a resumed training begins its epoch again": [
        "distill/test_train.py::test_a_run_resumed_twice_is_the_undisturbed_one_bit_for_bit",
    ],
    "run_distillation.py:1588, a buffer more in every epoch": [
        "distill/test_upstream_defects.py::test_reading_many_epochs_holds_one_pool_of_clips",
    ],
    "run_distillation.py:986, the teacher is wrapped and has gradients": [
        "distill/test_trainer.py::test_the_teacher_is_neither_trained_nor_saved",
    ],
    "run_distillation.py:1473, the frozen encoder drops out": [
        "distill/test_trainer.py::"
        "test_a_frozen_encoder_stays_in_evaluation_mode_and_gets_no_gradient",
    ],
    "run_distillation.py:684, the smallest corpus ends the epoch": [
        "distill/test_data.py::test_a_small_folder_does_not_end_the_epoch_of_a_large_one",
        "distill/test_data.py::test_a_weight_says_how_often_a_folder_comes_in_an_epoch",
    ],
    "run_distillation.py, a rate of 10.1 % sorts below 9.9 %; no early stop": [
        "distill/test_train.py::test_the_student_with_the_best_validation_is_the_one_that_is_written",
        "distill/test_train.py::test_a_training_without_progress_stops_and_is_then_done",
    ],
    "run_distillation.py, steps are miscounted with accumulation": [
        "distill/test_train.py::test_accumulated_batches_also_end_at_max_steps",
        "distill/test_trainer.py::"
        "test_the_trainer_weighs_every_token_the_same_over_accumulated_batches",
    ],
    "run_distillation.py:512, logging needs an account": [
        "distill/test_upstream_defects.py::"
        "test_training_reports_to_tensorboard_and_asks_for_no_account",
    ],
    "run_distillation.py:1453, tokens weigh by their micro-batch and device": [
        "distill/test_losses.py::test_the_loss_does_not_depend_on_how_a_batch_is_split",
        "distill/test_distributed.py::"
        "test_two_processes_equal_one_with_twice_the_batch_step_by_step",
    ],
}

DQ_WHISPER = {
    "features are computed again without a mask and see later tokens": [
        "distill/test_hidden.py::test_captured_states_do_not_see_later_tokens",
        "distill/test_layer_matching.py::"
        "test_logits_are_the_same_with_and_without_the_loss_and_layers_run_once",
    ],
    "the scale is the signed maximum, and integers leave their range": [
        "distill/test_quantization_grid.py::test_the_scale_is_made_of_the_absolute_maximum",
        "distill/test_quantization_grid.py::test_integers_stay_in_range_and_each_scale_is_used_up",
    ],
    "the feed-forward layers have 8 bits whatever was asked for": [
        "distill/test_quantization_model.py::"
        "test_every_planned_weight_is_really_seen_on_its_grid_with_its_bits",
    ],
    "embedding and head are counted in 8 bits and computed in float": [
        "distill/test_quantization_model.py::"
        "test_embedding_and_output_head_stay_one_weight_on_one_grid",
        "distill/test_quantization_sizes.py::"
        "test_the_embedding_is_in_eight_bits_where_it_is_counted_in_eight_bits",
    ],
    "learned steps take no part in the forward pass": [
        "distill/test_joint.py::test_learned_steps_are_trained_where_the_weights_are",
        "distill/test_quantization_grid.py::test_a_learned_step_gets_the_published_gradient",
    ],
    "a checkpoint has no adapters, so a resumed training begins with new ones": [
        "distill/test_joint.py::test_a_training_resumed_twice_is_the_undisturbed_one_in_all_that_it"
        "_learns_beside_the_student",
    ],
    "losses are sums, so their weights depend on the batch": [
        "distill/test_layer_matching.py::"
        "test_the_loss_is_a_mean_over_tokens_however_a_batch_is_split",
        "distill/test_distances.py::test_a_distance_is_a_mean_over_tokens",
    ],
    "the static map is right for half as many layers only": [
        "distill/test_matching.py::test_a_fixed_map_is_the_published_one",
    ],
    "the teacher is projected, and the loss falls by moving it": [
        "distill/test_layer_matching.py::test_by_default_the_loss_cannot_fall_by_moving_the_teacher",
    ],
    "the distance hardly has a gradient": [
        "distill/test_distances.py::test_the_papers_distance_hardly_has_a_gradient",
    ],
}


@pytest.mark.parametrize(
    ("defect", "tests"),
    [*DISTIL_WHISPER.items(), *DQ_WHISPER.items()],
    ids=[*DISTIL_WHISPER, *DQ_WHISPER],
)
def test_every_defect_of_the_papers_code_has_its_tests(defect: str, tests: list[str]):
    for name in tests:
        path, _, function = name.partition("::")
        text = (Path(__file__).parent / path).read_text(encoding="utf-8")
        assert re.search(rf"^def {function}\(", text, re.MULTILINE), f"{defect}: no {name}"
