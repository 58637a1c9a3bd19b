"""What is promised: which results have the same bits, and which agree within what.

A tolerance is a part of the largest number of the result, unless another is named. What is
not here is not promised, though it may well hold. Below each line stands the test that
proves it. Where several parameters are drawn, the test draws more than it names.

The same bits, on one machine with one set of versions
======================================================
The Numba backend sums in a fixed order, whatever the shape. So in float32 and float64, with
full parameters and with quantized ones, a position's logits have the same bits

    in a batch of any size, and alone
        tests/test_promises.py::test_numba_a_row_has_its_bits_in_any_batch
    with padding on the left, whatever is in the rows beside it
        tests/test_promises.py::test_numba_a_row_has_its_bits_with_padding
    computed after a past, in whatever pieces, and in one pass
        tests/test_promises.py::test_numba_a_past_in_any_pieces_gives_the_bits_of_one_pass
    on any number of threads
        tests/test_promises.py::test_numba_any_number_of_threads_gives_the_same_bits

and so do its single kernels

    linear layers, and what is joined to them
        tests/test_kernels.py::test_a_row_of_linear_has_the_same_bits_alone_and_in_any_batch
        tests/test_kernels_quantized.py::test_a_row_has_the_same_bits_alone_and_in_any_batch
    attention, prefilled and decoded
        tests/test_kernels.py::test_a_query_has_the_same_bits_decoded_and_prefilled
    norms and activations
        tests/test_kernels.py::test_norms_and_activations_have_the_same_bits_row_by_row
    a quantized product, with AVX-512 and without
        tests/test_kernels_quantized.py::test_a_cpu_without_avx512_computes_the_same_bits_within_its_arrays

With either backend these have the same bits:

    a pass that is run again, also by several threads at once on one model
        tests/test_promises.py::test_the_same_pass_gives_the_same_bits_again
        tests/test_model.py::test_one_model_serves_many_threads
    a trace with edits that change nothing, and the trace without them
        tests/test_trace.py::test_an_edit_that_changes_nothing_keeps_every_bit
    traces by several threads at once on one model
        tests/test_trace.py::test_threads_trace_one_model_at_once
    text that is drawn from a seed
        tests/test_generation.py::test_one_seed_gives_one_result_and_results_of_a_row_differ
    a KVCache, whatever is done with what continues it
        tests/test_cache.py::test_continuations_of_any_cache_in_any_order_leave_all_others_alone

The same bits everywhere: any machine, any version of NumPy
===========================================================
    the tiny models' parameters
        tests/test_tiny.py::test_the_parameters_are_pinned_bit_for_bit
    the raw words that random numbers are made of
        tests/test_randomness.py::test_raw_words_are_those_that_numpy_publishes
    every number of a golden file, in any format, written and read
        tests/test_golden.py::test_every_format_holds_the_same
        tests/test_golden.py::test_json_gives_every_number_back
    parameters and numbers in llm.c's files
        tests/test_llmc_file.py::test_a_model_is_written_and_read_as_llmc_has_it
        tests/test_llmc_file.py::test_a_debug_state_is_written_and_read_as_llmc_has_it

Within a tolerance
==================
NumPy's products are BLAS's, which sums in an order that depends on the shape and the
machine. With full parameters these agree within 1e-12 in float64 and 1e-5 in float32:

    the NumPy backend in any batch, with padding, after a past, on any number of threads
        tests/test_promises.py::test_numpy_agrees_with_itself_whatever_the_shape
    the two backends
        tests/test_promises.py::test_the_backends_agree
    a traced pass and the untraced one
        tests/test_trace.py::test_tracing_changes_the_output_by_rounding_at_most
    every step, and transformers' hooks
        tests/test_trace.py::test_every_name_is_what_transformers_hooks_see
        tests/test_trace.py::test_every_name_of_a_random_124m_is_what_hooks_see
        tests/test_trace.py::test_padding_types_and_embeddings_are_what_hooks_see
    plain.py, the page to read first, and the model
        tests/test_plain.py::test_plain_is_the_oracle_of_model

With bfloat16 parameters, which are products with rounded numbers, it is 1e-5 too. int8 and
int4 round what is multiplied as well, where a difference in the last place may become one
of a whole step: these are the formula's product within float32's rounding, step by step,

    and so is each linear step of a traced pass
        tests/test_trace.py::test_quantized_models_are_traced_with_the_weights_as_rounded
        tests/test_kernels_quantized.py::test_a_product_with_integers_is_the_formula

but the NumPy backend's logits after a past may differ from those of one pass by up to 1e-2
    (the Numba backend's have the same bits, see above)
        tests/test_promises.py::test_numpy_with_integers_is_near_itself_after_a_past

Ids
===
    in float64 a row of a batch gets the ids that it gets alone, greedily and sampled
        tests/test_generation.py::test_a_padded_row_gets_what_it_gets_alone
    in float32 wherever the gap of the two likeliest exceeds the tolerance
        tests/test_generation.py::test_in_float32_a_batch_agrees_wherever_the_choice_is_clear
    with a cache and without
        tests/test_generation.py::test_greedy_with_a_cache_is_greedy_without
        tests/test_generation.py::test_without_a_cache_the_same_is_said
    drafted ahead (by prompt lookup, an assistant, a quantized copy) or one by one
        tests/test_generation_speculative.py::test_prompt_lookup_is_plain_decoding_token_for_token
        tests/test_generation_speculative.py::test_an_assistant_changes_no_greedy_token
        tests/test_generation_speculative.py::test_the_models_own_quantized_copy_changes_no_greedy_token

Not promised
============
The same bits on another machine, or with another version of NumPy or Numba: exp, tanh and
BLAS differ in the last place. What a position of padding gives. And which of two ids is
chosen whose logits are nearer to each other than the tolerance.
"""
