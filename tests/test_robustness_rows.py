"""Where each of the 135 rows of the project's list of bad and edge inputs (robustness notes, B3) is tested, or why it is not.

Nothing else is here, so that a row without a test is seen at once, and a test that is renamed is missed.
"""

import pathlib
import re

ROWS = {  # "file::test", without the "test_" that all begin with; a file alone where most of it is about the row
    # shapes and sizes
    1: "functional::empty gradients::empty layer::life",
    2: "functional::refused gradients::refused robustness::bad_shapes robustness_layer::bad_inputs",
    3: "functional::refused gradients::refused layer::depth_multiplier_is_a_positive_integer",
    4: "functional::refused gradients::refused robustness::bad_shapes robustness_layer::bad_inputs",
    5: "functional::empty gradients::empty layer_grad::empty",
    6: "functional::refused gradients::refused",
    7: "functional::refused gradients::refused layer::window_that_does_not_fit",
    8: "kernels::kernel_sizes gradients::kernel_sizes",
    9: "kernels::kernel_sizes gradients::kernel_sizes",
    10: "kernels::any_call gradients::any_call_and_the_adjoint_identity",
    11: "kernels::kernel_sizes gradients::kernel_sizes oracle::rows_by_hand",
    12: "kernels::kernel_sizes gradients::kernel_sizes",
    13: "kernels::channels kernels::widths gradients::channels gradients::widths",
    14: "kernels::multipliers gradients::multipliers",
    15: "functional::stride_beyond_the_image gradients::stride_beyond_the_image",
    16: "functional::refused gradients::refused robustness::bad_shapes layer::inputs_have_four_axes",
    17: "functional::refused gradients::refused robustness::bad_shapes",
    18: "functional::refused gradients::refused layer::other_number_of_channels",
    19: "functional::refused robustness::bad_shapes",
    20: "functional::huge_views gradients::huge_views memory",
    21: "robustness::beyond_memory functional::results_too_large memory",
    22: "robustness::beyond_memory robustness_layer::beyond_memory memory",
    23: "memory",
    24: "robustness::bad_options functional::refused robustness_layer::beyond_memory",
    25: "not tested: no 32-bit Python here; sizes are Python's integers, compared with sys.maxsize (_geometry.countable)",
    # integers
    26: "functional::refused robustness::bad_options layer::what_is_no_pair_of_positive_integers_is_refused",
    27: "functional::stride_beyond_the_image gradients::stride_beyond_the_image",
    28: "functional::refused robustness::bad_options robustness_layer::long_arguments",
    29: "functional::refused robustness::bad_options layer::what_is_no_pair_of_positive_integers_is_refused",
    30: "functional::refused robustness::bad_options layer::what_is_no_pair_of_positive_integers_is_refused",
    31: "functional::odd_but_good robustness::spellings layer::integers_are_taken_in_any_form",
    32: "functional::refused robustness::bad_options layer::what_is_no_pair_of_positive_integers_is_refused",
    33: "functional::refused robustness::bad_options functional::nothing_is_kept robustness::arguments_that_change_arrays",
    34: "functional::refused robustness::bad_options layer::what_is_no_pair_of_positive_integers_is_refused",
    35: "kernels::strides_with_dilation gradients::strides_with_dilation layer::strides_with_dilation_are_refused",
    36: "layer::depth_multiplier_is_a_positive_integer robustness_layer::beyond_memory",
    37: "gradients::refused layer::what_is_no_pair_of_positive_integers_is_refused",
    # strings
    38: "functional::odd_but_good robustness::spellings layer::padding_is_valid_or_same",
    39: "functional::refused robustness::bad_options layer::padding_is_valid_or_same",
    40: "functional::refused robustness::bad_options kernels::explicit_padding gradients::explicit_padding",
    41: "functional::refused robustness::bad_options layer::data_format_is_one_of_two "
        "keras_config::function_and_explicit_layers_do_not_read_it",
    42: "functional::refused registry::unknown_name_lists_the_choices",
    43: "functional::activations_that_fail functional::activations robustness_layer::bad_activations",
    44: "functional::refused gradients::refused layer::unknown_keywords_are_refused",
    # memory layout
    45: "kernels::bits_memory_layout gradients::bits_of_workers_and_memory",
    46: "kernels::bits_memory_layout gradients::bits_of_workers_and_memory",
    47: "kernels::bits_memory_layout gradients::bits_of_workers_and_memory",
    48: "kernels::bits_memory_layout gradients::bits_of_workers_and_memory",
    49: "functional::memory robustness::forms robustness_layer::forms_of_inputs",
    50: "functional::memory functional::what_kernels_get robustness::forms",
    51: "functional::memory robustness::forms layer::inputs_are_converted",
    52: "functional::memory robustness::forms robustness_layer::forms_of_inputs",
    53: "functional::out_refused gradients::out_refused",
    54: "functional::memmap kernels::elements_beyond_32_bits",
    55: "functional::memory robustness::forms robustness_layer::forms_of_inputs",
    56: "kernels::bits_memory_layout gradients::bits_of_workers_and_memory",
    57: "guard_pages",
    58: "functional::sliding_windows robustness::forms",
    # types
    59: "functional::refused robustness::bad_arrays layer::inputs_that_are_no_real_numbers",
    60: "functional::refused robustness::bad_arrays layer::inputs_that_are_no_real_numbers",
    61: "functional::promotion functional::large_integers_do_not_wrap gradients::promotion",
    62: "functional::half_types_round_once functional::overflow_is_quiet gradients::half_types_round_once",
    63: "functional::half_types_round_once build::import_has_no_side_effects robustness_layer::without_ml_dtypes",
    64: "functional::long_double_is_refused robustness::bad_arrays layer::inputs_that_are_no_real_numbers",
    65: "functional::promotion functional::memory gradients::promotion",
    66: "functional::memory robustness::bad_arrays layer::ragged_inputs robustness_layer::bad_inputs",
    67: "functional::refused robustness::bad_arrays robustness_layer::bad_inputs",
    68: "functional::refused robustness::bad_arrays robustness_layer::bad_inputs",
    69: "functional::memory robustness::bad_arrays robustness::other_libraries robustness_layer::bad_inputs",
    70: "robustness::bad_arrays robustness::torch",
    71: "robustness::bad_arrays robustness::dask_is_never_computed robustness_layer::bad_inputs",
    72: "functional::refused robustness::bad_arrays robustness_layer::bad_inputs",
    73: "robustness::interfaces_that_lie",
    # values
    74: "kernels::nan_reaches_what_covers_it gradients::nan_reaches_what_it_belongs_to",
    75: "kernels::weights_not_finite gradients::weights_not_finite",
    76: "kernels::weights_not_finite gradients::weights_not_finite",
    77: "kernels::weights_not_finite",
    78: "kernels::nan_reaches_what_covers_it gradients::nan_reaches_what_it_belongs_to",
    79: "kernels::subnormals robustness::subnormal_gradients robustness::floating_point_environment",
    80: "not tested: the sign of a zero is not promised",
    81: "functional::overflow_is_quiet robustness::overflow_of_gradients_is_quiet",
    82: "kernels::error_bound gradients::long_sums",
    83: "kernels::nan_reaches_what_covers_it activations::relu_keeps_nan_and_infinity",
    # out
    84: "functional::out_refused gradients::out_refused",
    85: "functional::out_refused gradients::out_refused robustness::bad_options",
    86: "kernels::any_call kernels::margins_of_out gradients::any_call_and_the_adjoint_identity",
    87: "functional::out_overlaps_an_input gradients::out_overlaps_an_input",
    88: "functional::out_refused gradients::out_refused",
    89: "functional::out_refused gradients::out_refused robustness::bad_options",
    90: "kernels::any_call gradients::any_call_and_the_adjoint_identity",
    91: "functional::activations_that_fail processes",
    92: "functional::empty gradients::empty",
    # bias, weights, life of a layer
    93: "functional::refused layer::refused_weights_change_nothing",
    94: "layer::assigned_weights_are_checked_and_copied robustness_layer::bad_weights",
    95: "layer::refused_weights_change_nothing robustness_layer::bad_weights",
    96: "layer::before_build layer::build_is_done_once layer::other_number_of_channels",
    97: "layer::assigned_weights_are_checked_and_copied layer::get_and_set_weights",
    98: "layer::copies layer::config_round_trip layer_grad::copies",
    99: "layer::copies layer::layers_die",
    100: "layer::output_shape_with_unknown_sizes layer::output_shape_refuses robustness_layer::bad_output_shapes",
    # threads, processes, interruption
    101: "functional::refused threads::wrong_numbers threads::wrong_types robustness::bad_options",
    102: "processes::omp_num_threads",
    103: "threads::environment_that_is_no_number build::unknown_module",  # design.md: such a name raises
    104: "processes::fork processes::fork_while_threads_compute layer::child_of_a_process_that_was_building",
    105: "processes::pools processes::joblib_processes",
    106: "threads::many_threads_at_once",
    107: "layer::many_threads_build_once",
    108: "threads::data_race",
    109: "threads::threadpoolctl threads::set_workers_nests_and_restores threads::set_workers_is_of_its_task",
    110: "threads::joblib_threads threads::dask_threads",
    111: "interrupts::keyboard_interrupt interrupts::ctrl_c_as_the_user_sees_it",
    112: "interrupts::handlers_that_return",
    113: "memory::none_to_be_had processes::scratch_that_cannot_be_had",
    114: "not tested: libgomp ends the process, see SECURITY.md",
    115: "processes::end_of_the_interpreter processes::end_while_daemons_are_in_long_calls",
    116: "processes::subinterpreter processes::imported_twice",
    117: "robustness::observed_calls",
    118: "processes::small_stacks",
    119: "not tested: no musl, PyPy or free-threaded Python here",
    # files and configuration
    120: "keras_config::broken_file_gives_channels_last_and_one_warning "
         "keras_config::what_is_no_readable_file_does_not_block keras_config::import_reads_nothing",
    121: "keras_config::other_settings_are_ignored keras_config::broken_file_gives_channels_last_and_one_warning",
    122: "keras_config::keras_home_may_be_empty_relative_or_below_the_users_home robustness_layer::places_of_keras_json",
    123: "layer::refused_configs layer::shared_parts_do_not_multiply robustness_layer::json",
    124: "layer::refused_configs registry::config_runs_nothing",
    125: "registry::config_runs_nothing registry::deep_nesting robustness_layer::bad_objects",
    126: "layer::name_is_a_short_string_without_slash layer::name_is_kept "
         "robustness_layer::long_names_do_not_fill_messages",
    127: "weight_files",
    128: "weight_files",
    129: "weight_files",
    130: "weight_files",
    131: "robustness_layer::places_of_keras_json cli::bad_paths weight_files",
    132: "cli::usage cli::bad_path_of_the_process cli",
    133: "weight_files",
    134: "build::interpreter_flags robustness::environment_of_the_interpreter",
    135: "build::import_has_no_side_effects build::import_time",
}


def test_every_row_has_its_place():
    """The files and the tests that the table names exist."""
    assert list(ROWS) == list(range(1, 136))
    folder = pathlib.Path(__file__).parent
    for number, text in ROWS.items():
        for place in [] if text.startswith("not tested: ") else text.split():
            file, _, test = place.partition("::")
            path = folder / f"test_{file}.py"
            defined = re.findall(r"^def test_(\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert test in ["", *defined], f"row {number}: {place}"
