# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Each row of the tables of bad input and faults in the docs has a test, which is named here."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "limits.md"
CASES = "integration/test_bad_input.py::"
LISTING, MAPS, IMAGES = (f"unit/regions/reading/test_{name}.py::" for name in ("listing", "maps", "images"))
PAIRING, TABLE = "unit/regions/reading/test_maps.py::", "unit/data/test_region_table.py::"
DATAMODULE, RUN = "unit/data/test_datamodule.py::", "unit/runs/test_discover.py::"
FOLDER_RUN = "unit/deploy/line/test_folder_run.py::"
STORE, CLASSIFIER = "unit/deploy/line/test_result_folder.py::", "unit/deploy/test_classifier.py::"
WEIGHTS = "unit/models/encoders/test_weights.py::"

TESTS = {
    "folder missing or empty": [f"{LISTING}test_missing_and_empty_folders_are_named"],
    "hidden files and folders, folders of results": [
        f"{LISTING}test_hidden_files_and_folders_are_passed_over",
        f"{LISTING}test_results_are_never_taken_as_input",
    ],
    "files with other suffixes": [f"{LISTING}test_other_suffixes_are_counted_and_said_once"],
    "links to folders": [
        f"{CASES}test_a_linked_folder_is_searched",
        f"{LISTING}test_links_are_followed_and_each_real_folder_is_searched_once",
    ],
    "name that is not UTF-8": [f"{CASES}test_a_name_that_is_not_utf8_is_named"],
    "name too long for its crops": [f"{CASES}test_a_long_name_works"],
    "output folder among the images": [f"{CASES}test_a_run_among_its_images_is_no_input"],
    "line of a list that starts with `#`": [f"{LISTING}test_a_list_narrows_the_images_down"],
    "image unreadable, cut off, empty, of several pages, a pipe or device": [
        f"{IMAGES}test_what_is_no_image_is_named",
        f"{IMAGES}test_what_is_cut_off_is_refused",
        f"{IMAGES}test_several_pages_are_refused",
        "unit/regions/reading/test_listing.py::test_folders_pipes_and_devices_are_refused",
    ],
    "content of another format than the suffix says": [f"{MAPS}test_the_content_says_what_a_file_is"],
    "EXIF orientation": [
        f"{CASES}test_turned_pictures_are_used_upright",
        f"{IMAGES}test_images_come_out_upright_in_every_format",
    ],
    "grey, RGBA, 16-bit": [f"{IMAGES}test_every_kind_of_image_becomes_rgb8"],
    "16-bit files of a 10-, 12- or 14-bit camera": [
        f"{CASES}test_twelve_bits_in_sixteen_are_warned_of_and_can_be_said",
        f"{TABLE}test_images_of_another_bit_depth_are_said",
    ],
    "value above what `bit_depth` allows": [f"{IMAGES}test_a_bit_depth_is_the_range_of_16_bit_files"],
    "image without a map": [f"{PAIRING}test_an_image_without_map_is_named"],
    "map without an image": [f"{PAIRING}test_a_map_without_image_is_left_out_with_a_warning"],
    "two files with one relative path and stem": [
        f"{LISTING}test_two_images_with_one_stem_are_refused",
        f"{PAIRING}test_two_maps_with_one_name_are_refused",
        f"{CASES}test_classify_refuses_twins_of_a_name",
        f"{CASES}test_classify_never_takes_the_map_of_another_image",
    ],
    "map with NaN or infinity, in colour, of several pages": [
        f"{MAPS}test_maps_that_are_not_finite_are_named",
        f"{MAPS}test_grey_pictures_with_three_channels_are_maps_and_colours_are_not",
        f"{MAPS}test_what_is_no_single_map_is_named",
    ],
    "integers and floats, or 8 and 16 bits, in one folder of maps": [f"{CASES}test_maps_of_two_types_are_refused"],
    "maps of another kind than those of the run": [
        f"{DATAMODULE}test_maps_of_another_kind_than_the_models_are_refused",
        "unit/deploy/line/test_folder_run.py::test_maps_of_two_kinds_are_refused",
        f"{CASES}test_classify_refuses_maps_of_another_kind_than_the_runs",
    ],
    "map in other units than those of the run, in `classify`, `extend` and `Engine.predict`": [
        f"{CLASSIFIER}test_maps_in_other_units_are_warned_of_once",
        f"{TABLE}test_maps_of_new_images_in_other_units_than_those_of_the_run_are_warned_of_once",
    ],
    "names whose accents are coded in two ways": [f"{PAIRING}test_names_of_two_systems_belong_together"],
    "file in the place of the output folder": [f"{LISTING}test_a_file_in_the_place_of_results_is_named"],
    "map with height and width swapped": [f"{TABLE}test_a_map_whose_sides_are_swapped_is_named"],
    "map of other proportions than its image": [f"{TABLE}test_maps_of_other_proportions_are_said"],
    "small map, such as the grid of patches of a detector": [
        f"{CASES}test_small_maps_keep_their_defects",
        "unit/regions/test_elements.py::test_maps_of_other_sizes_have_the_same_elements",
    ],
    "map with thousands of elements (MEBin)": [
        f"{CASES}test_thousands_of_elements_fit_into_memory",
        "unit/regions/test_boxes.py::test_thousands_of_boxes_are_merged_without_a_table_of_all_pairs",
    ],
    "constant maps": [f"{DATAMODULE}test_constant_maps_give_whole_images"],
    "one map with a peak five times as high as all others, or maps that look inverted": [
        "unit/regions/test_cutting.py::test_hot_and_inverted_maps_are_warned_of"
    ],
    "no region in any image": [f"{CASES}test_no_region_in_any_image_is_an_error"],
    "a third of the images without a mask": [
        f"{CASES}test_defects_without_good_images_are_warned_of",
        f"{DATAMODULE}test_many_images_without_a_region_are_warned_of",
    ],
    "image without a region (not MEBin)": [
        "unit/deploy/test_classifier.py::test_an_image_without_region_has_a_result",
        "unit/data/test_batches.py::test_an_image_without_region_is_predicted_as_well",
    ],
    "empty mask (MEBin)": [f"{DATAMODULE}test_one_constant_map_among_others_is_a_whole_image"],
    "neither maps, detector nor good images": ["unit/cli/test_discover.py::test_maps_or_a_detector_but_not_both"],
    "no weights for a detector, no hub": [
        "unit/runs/test_detector.py::test_without_any_weights_the_error_names_the_ways_out",
        "unit/cli/test_discover.py::test_a_detector_without_its_weights_is_told_with_a_way_out",
    ],
    "`normal_images` fewer than 12, or unlike the others": [
        "unit/runs/test_cluster.py::test_few_normal_images_are_as_good_as_none",
        "unit/runs/test_files.py::test_few_good_images_are_told",
        "unit/runs/test_cluster.py::test_a_cluster_is_normal_only_if_it_looks_it",
    ],
    "`base synthetic` without good images": [
        "unit/data/test_synthetic_base.py::test_without_any_the_least_anomalous_images_will_do"
    ],
    "base image without a mask, outside a class folder; class without any": [
        "unit/data/test_images.py::test_a_class_without_masks_is_named",
        "unit/data/test_images.py::test_missing_folders_and_loose_images_are_named",
    ],
    "base and novel class of one name": [f"{DATAMODULE}test_base_and_novel_classes_may_share_names"],
    "example outside a class folder, or among the images; class without any": [
        "unit/data/test_images.py::test_what_cannot_be_used_is_named"
    ],
    "examples in which nothing is found": [
        "unit/runs/test_examples.py::test_a_kind_without_any_defect_in_its_examples_is_named"
    ],
    "examples, or networks side by side, with training": [
        "unit/runs/test_examples.py::test_examples_are_for_clusters_and_come_from_elsewhere",
        "unit/models/test_describer.py::test_networks_side_by_side_are_not_trained",
    ],
    "label file missing, without its columns, with a short row or two classes for an image": [
        f"{CASES}test_a_short_row_of_labels_is_named",
        "unit/data/test_labels.py::test_bad_label_files_are_named",
        "unit/data/test_labels.py::test_rows_that_lack_something_or_contradict_are_named_with_their_line",
    ],
    "image without a label": [f"{RUN}test_unknown_labels_are_not_scored"],
    "list or labels not in UTF-8": [f"{LISTING}test_a_text_of_another_encoding_is_named"],
    "fewer regions than classes": [f"{RUN}test_too_few_regions_are_named"],
    "no weights for the backbone, no hub": [
        "unit/models/encoders/test_hub.py::test_errors_of_the_download_name_the_way_out"
    ],
    "weights of another size, with NaN, a Git LFS pointer, another kind of file": [
        f"{WEIGHTS}test_the_backbone_that_fits_is_named",
        f"{WEIGHTS}test_weights_that_are_no_numbers_are_refused",
        f"{WEIGHTS}test_pointers_of_git_lfs_are_told",
        f"{WEIGHTS}test_files_of_something_else_are_refused",
    ],
    "networks side by side that don't go together": [
        "unit/models/encoders/test_build_encoder.py::test_names_and_files_that_do_not_go_together",
        "unit/models/test_describer.py::test_networks_side_by_side_see_views_of_one_size",
    ],
    "detector without maps, or with NaN": ["unit/data/test_detector_maps.py::test_useless_maps_are_refused"],
    "class path that is no anomalib model, checkpoint missing": [
        "unit/cli/test_discover.py::test_wrong_detectors_end_with_one_line",
        "unit/data/test_detector_maps.py::test_a_missing_checkpoint_is_named",
    ],
    "folder with a run of other settings, or trained on other images": [
        f"{RUN}test_a_folder_of_other_settings_is_refused",
        f"{RUN}test_other_settings_are_refused_in_python_too",
        f"{RUN}test_what_was_made_from_something_else_is_not_taken",
    ],
    "checkpoint of another model, backbone or number of classes": [
        "unit/models/test_lightning_model.py::test_a_checkpoint_of_another_model_is_refused",
        "unit/models/test_lightning_model.py::test_a_checkpoint_with_other_sizes_is_refused",
    ],
    "checkpoint or PyTorch artefact of another version of `anomalib_ncd`": [
        "unit/models/test_checkpoints.py::test_checkpoints_of_other_versions_are_refused",
        "unit/models/test_checkpoints.py::test_features_of_another_width_are_of_another_version",
        "unit/deploy/test_runtimes.py::test_prototypes_of_another_width_are_refused",
    ],
    "regions cut otherwise than the model's": [f"{DATAMODULE}test_settings_other_than_the_models_are_refused"],
    "model that was never fitted, in `Engine.predict`": [f"{CASES}test_a_model_that_was_never_fitted_does_not_predict"],
    "run made anew with other images": [f"{CASES}test_names_are_not_put_onto_other_clusters"],
    "several processes with a detector for maps": [f"{DATAMODULE}test_a_detector_in_several_processes_is_refused"],
    "fewer regions than the false-reject rate needs": ["unit/models/test_rejection.py::test_too_few_regions_are_said"],
    "`extend`: nothing unknown": ["unit/cli/test_classify.py::test_small_groups_stay_unknown"],
    "`extend`: images of the run again": ["unit/cli/test_classify.py::test_the_images_of_the_run_keep_their_classes"],
    "full disk, killed process": [
        f"{CASES}test_a_full_disk_is_said_and_the_command_goes_on_later",
        "unit/regions/test_writing.py::test_a_write_that_fails_leaves_the_old_file",
        f"{RUN}test_an_interrupted_training_goes_on",
    ],
    "image that can't be used": [
        f"{FOLDER_RUN}test_bad_files_are_listed_and_tried_again_by_the_next_call",
        f"{FOLDER_RUN}test_names_that_are_not_utf8_pipes_and_swapped_maps_are_rows",
        f"{FOLDER_RUN}test_a_file_without_permission_is_a_row",
    ],
    "half-written image in a watched folder": [
        f"{FOLDER_RUN}test_a_file_that_stays_broken_is_given_up_after_growing_pauses",
        f"{FOLDER_RUN}test_a_map_that_is_half_written_is_looked_at_again_in_a_watch",
    ],
    "detector, network or runtime that fails, out of memory": [
        f"{CLASSIFIER}test_whatever_a_detector_or_an_encoder_raises_is_reported_by_image",
        f"{FOLDER_RUN}test_a_detector_that_fails_is_tried_again_in_a_watch",
    ],
    "map of another tool that isn't there yet": [f"{FOLDER_RUN}test_a_map_that_was_missing_is_looked_for_again"],
    "map or image that changes later": [
        f"{CASES}test_a_new_map_makes_an_image_be_classified_again",
        f"{FOLDER_RUN}test_a_new_map_or_picture_makes_an_image_be_classified_again",
    ],
    "killed, power cut, full disk": [
        f"{FOLDER_RUN}test_a_killed_process_loses_nothing_and_does_nothing_twice",
        f"{STORE}test_a_full_disk_is_said_and_nothing_is_saved_in_part",
        "unit/deploy/line/test_result_folder.py::test_a_disk_that_fills_up_at_any_moment_leaves_whole_files",
    ],
    "results folder in use, or of another classifier": [
        f"{STORE}test_two_processes_do_not_write_one_database",
        f"{STORE}test_results_of_another_classifier_or_version_are_refused",
    ],
    "artefact changed, forged, of another version": [
        "unit/deploy/packing/test_artefact.py::test_what_is_wrong_is_refused_with_a_reason",
        "unit/deploy/packing/test_artefact.py::test_a_changed_network_is_refused",
    ],
    "Ray actor killed": [
        "unit/deploy/line/test_ray_actor.py::test_two_workers_of_whom_one_is_killed_see_every_image_once",
        "unit/deploy/line/test_ray_actor.py::test_a_name_that_is_not_utf8_is_a_row",
    ],
}


def rows_of_the_page() -> list[str]:
    """First cells of the tables of inputs and cases."""
    tables = re.split(r"^\| (?:input|case) \| what happens \|\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [row for table in tables[1:] for row in re.findall(r"^\| ([^-|][^|]*) \|", table, flags=re.MULTILINE)]


def test_every_row_names_its_tests() -> None:
    rows = rows_of_the_page()
    assert len(rows) > 50
    assert sorted(rows) == sorted(TESTS)


@pytest.mark.parametrize("named", sorted({test for tests in TESTS.values() for test in tests}))
def test_a_named_test_exists(named: str) -> None:
    file, _, name = named.partition("::")
    assert re.search(rf"^ *def {name}\(", (ROOT / "tests" / file).read_text(encoding="utf-8"), flags=re.MULTILINE)
