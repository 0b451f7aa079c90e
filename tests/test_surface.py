"""What the documentation promises, row by row, and the tests that show it: rows that are there today.

A row fails here when one of its tests is gone, or may be skipped or expected to fail. Whether they pass they
say themselves.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent

ROWS: dict[str, list[str]] = {
    # A session, and each way in which there is none.
    "A1": [
        "interop/test_quicpro_as_client.py::test_the_handshake_is_done_on_return",
        "interop/test_quicpro_as_client.py::test_options_are_a_mapping_or_a_config",
        "interop/test_quicpro_as_client.py::test_each_failure_to_connect_has_its_exception",
        "interop/test_quicpro_as_client.py::test_a_ticket_is_taken_up_once",
    ],
    # Requests, as the other side saw them.
    "A2": [
        "interop/test_quicpro_as_client.py::test_without_a_body_it_is_a_get_and_with_one_a_post",
        "interop/test_quicpro_as_client.py::test_a_body_arrives_whole",
        "interop/test_quicpro_as_client.py::test_ids_are_those_of_the_quic_streams",
        "interop/test_quicpro_as_client.py::test_without_a_body_it_leaves_with_the_next_call",
        "interop/test_quicpro_as_client.py::test_when_the_next_call_is_a_piece_of_a_body_it_is_a_post",
    ],
    # Responses, whole.
    "A3": [
        "interop/test_quicpro_as_client.py::test_a_response_is_none_until_it_is_complete",
        "interop/test_quicpro_as_client.py::test_a_body_that_is_kept_whole_is_bounded",
        "interop/test_quicpro_as_client.py::test_a_reset_is_an_error_of_its_stream",
    ],
    # Polling.
    "A4": [
        "interop/test_quicpro_as_client.py::test_poll_returns_when_something_comes_or_its_time_is_over",
        "interop/test_quicpro_as_client.py::test_poll_is_for_what_this_greenlet_asked_for",
        "interop/test_quicpro_as_client.py::test_poll_without_having_asked_is_for_anything",
        "interop/test_quicpro_as_client.py::test_poll_of_a_session_that_is_over_is_false",
    ],
    # The end of a session.
    "A5": [
        "interop/test_quicpro_as_client.py::test_close_is_told_to_the_server_and_to_who_waits",
        "test_quicpro_client_session.py::test_close_while_others_wait",
    ],
    # A body in pieces.
    "A6": [
        "interop/test_quicpro_as_client.py::test_an_upload_in_chunks",
        "interop/test_quicpro_as_client.py::test_a_server_that_has_enough",
        "test_quicpro_exchange.py::test_a_body_is_held_against_its_content_length",
    ],
    # The last error, of each greenlet.
    "A9": [
        "interop/test_quicpro_as_client.py::test_the_last_error_is_the_greenlet_s_own",
        "interop/test_quicpro_as_client.py::test_poll_of_a_session_that_is_over_is_false",
        "test_quicpro_last_error.py::test_greenlets_do_not_meet",
    ],
    # Fibers.
    "A11": [
        "interop/test_quicpro_as_client.py::test_fetching_in_fibers",
        "test_quicpro_fiber.py::test_it_runs_until_it_waits_and_returns",
        "test_quicpro_fiber.py::test_what_it_raised_is_raised_and_reported_once",
    ],
    # Bodies as they come.
    "A12": [
        "interop/test_quicpro_as_client.py::test_chunks_come_as_they_are_sent",
        "interop/test_quicpro_as_client.py::test_a_chunk_that_is_not_there_in_time",
        "interop/test_quicpro_as_client.py::test_a_body_that_is_cut",
    ],
    # Settings.
    "B1": [
        "interop/test_quicpro_as_server.py::test_certificate_and_key_in_one_pem",
        "test_quicpro_config.py::test_every_setting_of_the_documentation_is_known",
        "test_quicpro_config.py::test_an_unknown_name_warns_and_guesses",
        "test_quicpro_config.py::test_a_wrong_value_raises",
    ],
    # Addresses. Several workers on one are the supervisor's.
    "B2": [
        "interop/test_quicpro_as_server.py::test_each_form_of_an_address",
        "interop/test_quicpro_as_server.py::test_a_port_that_somebody_holds",
        "test_examples_workers.py::test_fork_per_core_server",
        "test_examples_workers.py::test_a_port_of_somebody_else",
        "test_supervisor_arbiter.py::test_a_port_that_is_taken",
    ],
    # Accepting, on a quiet port too.
    "B3": [
        "interop/test_quicpro_as_server.py::test_accept_outlasts_a_quiet_port",
    ],
    # Requests.
    "B4": [
        "interop/test_quicpro_as_server.py::test_what_a_request_says",
        "interop/test_quicpro_as_server.py::test_receiving_waits_so_long",
        "interop/test_quicpro_as_server.py::test_bodies_both_ways",
    ],
    # Answers, in pieces and under back-pressure.
    "B5": [
        "interop/test_quicpro_as_server.py::test_an_answer_leaves_piece_by_piece",
        "interop/test_quicpro_as_server.py::test_who_answers_faster_than_the_client_takes_waits",
    ],
    # What was written arrives.
    "B7": [
        "interop/test_quicpro_as_server.py::test_an_answer_arrives_though_the_session_is_closed",
    ],
    # WebSockets over HTTP/3, both sides: the mechanism.
    "B6": [
        "interop/test_quicpro_as_server.py::test_aioquic_chats",
        "interop/test_quicpro_as_server.py::test_our_client_chats",
        "interop/test_quicpro_as_server.py::test_the_end_is_read_once_the_close_was",
        "interop/test_quicpro_as_server.py::test_a_refusal_is_an_error",
        "interop/test_quicpro_as_server.py::test_looking_does_not_consume",
        "interop/test_websocket.py::test_messages_come_back",
        "interop/test_websocket.py::test_a_refusal_is_an_answer",
        "interop/test_websocket.py::test_aioquic_s_messages",
        "interop/test_websocket_frames.py::test_our_server_does_what_autobahn_asks",
        "interop/test_websocket_frames.py::test_our_client_does_what_autobahn_asks",
        "test_websocket_textfile.py::test_lines_end_where_a_newline_or_a_message_ends",
        "test_websocket_textfile.py::test_each_write_is_a_text_message",
        "test_websocket_chat.py::test_each_message_reaches_all_in_one_order",
    ],
    # A connection's qlog, from that moment on: by strict readers, and as qvis takes it.
    "A7": [
        "interop/test_quicpro_as_client.py::test_a_trace_begins_at_the_call",
        "interop/test_quicpro_as_client.py::test_a_path_that_cannot_be_written",
        "test_qlog_files.py::test_it_begins_at_the_call_and_ends_with_the_connection",
        "test_qlog_files.py::test_a_path_that_cannot_be_written",
        "test_qlog_files_schema.py::test_requests_both_ways",
        "test_qlog_files_schema.py::test_quiche_reads_it",
        "test_qlog_convert.py::test_ours_for_qvis_and_back",
    ],
    # Numbers of a connection, by quiche's names.
    "A8": [
        "interop/test_quicpro_as_client.py::test_stats_are_quiche_s_and_in_nanoseconds",
        "test_stats.py::test_it_has_the_fields_of_the_engines_record",
        "test_stats.py::test_the_numbers_of_a_connection_that_was_used",
    ],
    # Tickets to take along, and what a connection says of itself.
    "A10": [
        "interop/test_quicpro_as_client.py::test_a_ticket_is_taken_up_once",
        "interop/test_quicpro_as_client.py::test_a_session_cache_resumes_by_itself",
        "interop/test_resumption.py::test_our_client_resumes",
        "interop/test_early_data.py::test_aioquic_takes_early_data",
        "interop/test_early_data.py::test_aioquic_refuses_early_data",
        "test_tickets_ticket.py::test_what_is_written_is_read",
    ],
    # The modes, and which one a process chooses.
    "C1": [
        "test_session_modes.py::test_auto_chooses_by_the_environment",
        "test_session_modes.py::test_after_a_fork_auto_is_shared_memory",
        "test_session_modes.py::test_each_mode_has_its_store",
        "test_session_modes.py::test_a_session_shows_its_mode_once_it_has_chosen",
        "interop/test_workers.py::test_each_worker_takes_up_the_last_one_s_session",
    ],
    # A session that is kept serves the next call.
    "C2": ["test_client.py::test_functions_of_the_module_share_a_session_for_each_trust"],
    # Tickets in memory, files and Redis: from one process to another.
    "C3": [
        "interop/test_workers.py::test_each_worker_takes_up_the_last_one_s_session",
        "test_tickets_store.py::test_a_ticket_of_one_process_is_used_by_another_and_each_by_one_only",
        "test_tickets_redis.py::test_away_later_and_back_again",
        "interop/test_early_data.py::test_ours_with_ours",
    ],
    # A dead session is replaced unseen.
    "C4": [
        "interop/test_faults.py::test_a_session_goes_on_with_a_server_that_came_back",
        "test_repeats.py::test_a_connection_that_died_while_it_rested_is_replaced_unseen",
        "test_repeats.py::test_a_process_that_was_frozen_goes_on",
    ],
    # Tickets in shared memory.
    "C5": [
        "test_tickets_shared_memory.py::test_128_kib_hold_115_tickets_of_1000_bytes_and_the_oldest_leaves_first",
        "test_tickets_shared_memory.py::test_a_process_that_is_killed_holds_up_nobody",
        "interop/test_workers.py::test_each_worker_takes_up_the_last_one_s_session",
    ],
    # Workers share keys and the register of early data.
    "C7": [
        "test_workers.py::test_any_worker_resumes_any_client_with_early_data",
        "test_workers.py::test_a_first_flight_that_is_sent_again_runs_once",
        "interop/test_group.py::test_a_recorded_flight_runs_once_whoever_gets_it",
        "test_examples_workers.py::test_ticket_resumption_multiworker",
    ],
    # Is it resumed? The commands tell, also in a second process.
    "C8": [
        "test_cli_fetch.py::test_a_second_process_resumes_with_early_data",
        "test_cli_fetch.py::test_a_file_of_sessions",
        "test_cli_fetch.py::test_without_sessions",
        "test_cli_info.py::test_a_setting_is_shown_as_php_shows_a_directive",
    ],
    # Errors, each by a real fault.
    "D1": [
        "interop/test_every_error.py::test_d1_connection",
        "interop/test_faults.py::test_a_server_that_is_killed_and_comes_back",
    ],
    "D2": [
        "interop/test_every_error.py::test_d2_stream",
        "interop/test_faults.py::test_a_handler_that_raises",
    ],
    "D3": [
        "interop/test_every_error.py::test_d3_tls_handshake",
        "interop/test_faults.py::test_a_certificate_that_nobody_trusts",
        "interop/test_faults.py::test_no_common_protocol",
    ],
    "D4": [
        "interop/test_every_error.py::test_d4_timeout_of_a_handshake",
        "interop/test_every_error.py::test_d4_timeout_of_an_answer",
    ],
    "D5": [
        "interop/test_every_error.py::test_d5_transport",
        "interop/test_every_error.py::test_d5_an_unknown_quic_frame",
        "interop/test_every_error.py::test_d5_we_are_told_of_an_unknown_frame",
        "interop/test_every_error.py::test_d5_a_frame_of_http2",
        "test_h3.py::test_the_server_closes_the_connection",
    ],
    "D6": [
        "interop/test_every_error.py::test_d6_server",
        "test_server.py::test_a_port_that_somebody_holds",
    ],
    "D7": [
        "interop/test_every_error.py::test_d7_client",
        "test_urls.py::test_what_is_no_url_is_refused",
    ],
    "D8": [
        "interop/test_every_error.py::test_d8_socket",
        "interop/test_faults.py::test_a_closed_port_fails_at_once",
        "interop/test_faults.py::test_a_name_that_does_not_exist",
    ],
    # Warnings, each by a real reason.
    "D9": [
        "test_settings.py::test_a_name_that_is_not_known_is_warned_of",
        "test_quicpro_functions.py::test_an_unknown_option_is_warned_of",
        "test_quicpro_server.py::test_settings_for_clients_are_warned_of",
        "interop/test_warnings.py::test_d9_an_option_that_is_not_known",
    ],
    "D10": [
        "interop/test_warnings.py::test_d10_a_handshake_that_took_long",
        "interop/test_warnings.py::test_d10_round_trips_that_grew",
        "interop/test_warnings.py::test_d10_each_connection_is_warned_of_by_itself",
        "interop/test_warnings.py::test_d10_of_a_session_of_the_documentation",
        "interop/test_warnings.py::test_the_hub_warns_of_nothing",
    ],
    "D11": [
        "test_quicpro_config.py::test_an_old_name_warns_and_counts",
        "interop/test_warnings.py::test_d11_an_option_by_its_old_name",
    ],
    "D12": [
        "interop/test_warnings.py::test_d12_a_body_that_is_shorter_than_announced",
        "interop/test_warnings.py::test_d12_a_body_that_is_read_in_pieces",
        "interop/test_warnings.py::test_d12_a_datagram_that_is_cut",
        "interop/test_warnings.py::test_d12_of_a_session_of_the_documentation",
    ],
    # Messages.
    "D13": [
        "interop/test_every_error.py::test_d3_tls_handshake",
        "interop/test_every_error.py::test_d4_timeout_of_a_handshake",
        "interop/test_every_error.py::test_d14_internal",
        "interop/test_warnings.py::test_d10_a_handshake_that_took_long",
        "interop/test_warnings.py::test_d13_an_unknown_frame_is_warned_of_with_its_number",
        "interop/test_warnings.py::test_d13_what_is_reserved_to_be_skipped_is_not",
    ],
    # Codes: those of the classes above, and these.
    "D14": [
        "test_exceptions.py::test_the_constants_are_the_documented_numbers",
        "interop/test_every_error.py::test_d14_ok_is_what_is_no_failure_of_ours",
        "interop/test_every_error.py::test_d4_timeout_of_an_answer",
        "interop/test_every_error.py::test_d14_invalid_state",
        "interop/test_every_error.py::test_d14_connection_lost",
        "interop/test_every_error.py::test_d3_tls_handshake",
        "interop/test_every_error.py::test_d2_stream",
        "interop/test_every_error.py::test_d5_transport",
        "interop/test_every_error.py::test_d14_internal",
        "interop/test_every_error.py::test_d14_unsupported_version",
    ],
    # The reference, whose recipes run.
    "D15": [
        "test_docs.py::test_the_generated_parts_of_the_page_of_errors_are_current",
        "test_docs.py::test_every_row_of_the_page_of_errors_has_a_recipe_of_its_own",
        "test_docs.py::test_an_example_prints_what_it_says",
        "test_cli_explain.py::test_every_class_cause_and_warning_is_found_by_its_name",
    ],
    # The MCP table of errors, each by a real fault, in the documentation's form and in the protocol's own.
    "D16": [
        "test_examples_agents.py::test_what_a_tool_server_refuses",
        "test_examples_agents.py::test_events_that_are_cut_off",
        "test_examples_agents.py::test_a_tool_server_that_cannot_be_reached",
        "test_examples_agents.py::test_what_goes_wrong_with_a_call_has_the_table_s_classes",
    ],
    # Knobs: the spin; AF_XDP, and its reason where it cannot be had; the idle time.
    "E1": [
        "test_datapath.py::test_the_program_comes_before_the_environment",
        "test_quicpro_server.py::test_busy_poll_and_xdp",
    ],
    "E2": [
        "netns/test_xdp.py::test_everything_goes_past_the_system",
        "netns/test_xdp.py::test_a_client_goes_past_the_system_too",
        "netns/test_xdp.py::test_it_is_not_permitted",
        "test_datapath.py::test_no_xdp_gives_its_reason_once_and_udp_is_used",
        "test_quicpro_server.py::test_busy_poll_and_xdp",
    ],
    "E5": ["test_quicpro_session.py::test_the_idle_time_is_honoured_on_both_sides"],
    # The trace, and that it is free when off.
    "E3": [
        "test_trace.py::test_a_program_with_its_steps_packets_events_and_waits",
        "test_trace.py::test_off_no_method_is_another",
        "cext/test_cext.py::test_c",
    ],
    # Settings of the file, the environment and the program.
    "E4": [
        "test_settings.py::test_the_environment_comes_before_the_file_and_that_before_the_default",
        "test_session_modes.py::test_a_mode_may_be_given",
        "test_cli_info.py::test_every_setting_and_where_it_is_from",
    ],
    # The examples, run as their readers run them.
    "F1": [
        "test_examples.py::test_single_get",
        "test_examples.py::test_single_get_from_somebody_else_s_server",
    ],
    "F2": [
        "test_examples.py::test_parallel_gets",
        "test_examples.py::test_parallel_gets_are_under_way_together",
    ],
    "F3": [
        "test_examples.py::test_streaming_post",
        "test_examples.py::test_streaming_post_of_a_large_file_takes_no_memory",
    ],
    "F4": [
        "test_examples.py::test_websocket_chat_client",
        "test_examples.py::test_websocket_chat_client_prints_what_it_hears_at_once",
    ],
    "F5": [
        "test_examples.py::test_websocket_server",
        "test_examples.py::test_websocket_server_has_a_budget_that_is_given_back",
        "test_examples.py::test_websocket_server_takes_somebody_else_s_client",
    ],
    "F6": ["test_examples.py::test_faas_warm_start"],
    "F7": ["test_examples.py::test_stats_and_qlog"],
    "F8": ["test_examples.py::test_busy_poll_rtt", "netns/test_xdp.py::test_busy_poll_rtt_in_microseconds"],
    "F9": [
        "test_examples.py::test_async_server",
        "test_examples.py::test_async_server_answers_curl",
        "test_examples.py::test_async_server_serves_others_while_one_says_nothing",
    ],
    "F12": ["test_examples.py::test_error_handling"],
    "F13": [
        "test_examples_agents.py::test_sse_chat_completion",
        "test_examples_agents.py::test_sse_chat_completion_prints_each_token_before_the_next_is_made",
    ],
    "F14": [
        "test_examples_agents.py::test_parallel_prompts",
        "test_examples_agents.py::test_ten_prompts_are_under_way_together",
    ],
    "F15": [
        "test_examples_agents.py::test_rag_websocket",
        "test_examples_agents.py::test_rag_websocket_asks_both_on_one_socket",
    ],
    "F17": [
        "test_examples_agents.py::test_mcp_tool_call",
        "test_examples_agents.py::test_mcp_tool_call_prints_each_delta_before_the_next_is_made",
        "test_examples_agents.py::test_the_mcp_sdk_s_server_calculates",
        "test_examples_agents.py::test_a_tool_s_progress_comes_while_it_works",
    ],
    # Examples with several workers.
    "F10": ["test_examples_workers.py::test_fork_per_core_server"],
    "F11": ["test_examples_workers.py::test_ticket_resumption_multiworker"],
    "F16": [
        "test_examples_workers.py::test_agent_gateway_proxies_by_path_and_streams_back",
        "test_examples_workers.py::test_agent_gateway_s_client_learns_that_a_model_broke_off",
        "test_examples_workers.py::test_agent_gateway_without_a_model",
    ],
    # 0-RTT never breaks over workers: the claim; `make soak ONLY=resumptions` shows it at length.
    "G3": ["test_workers.py::test_any_worker_resumes_any_client_with_early_data"],
    # Microseconds by AF_XDP and busy polling: that both are on, and the time; `make bench ONLY=x` compares.
    "G4": ["netns/test_xdp.py::test_busy_poll_rtt_in_microseconds"],
    # Ten times curl: rows b of the benchmark measure it, and that they do is shown here.
    "G1": [
        "test_bench.py::test_clients_of_the_rows_b_speak_http3",
        "test_bench.py::test_rows_b_compare_what_was_counted",
        "test_bench.py::test_a_peer_that_is_not_there_fails_its_rows_and_the_benchmark",
        "test_bench.py::test_answers_that_are_others_fail_their_rows",
        "test_bench.py::test_requests_that_nobody_saw_fail_their_rows",
        "test_bench.py::test_an_answer_over_another_version_of_http_is_none",
    ],
    # Thousands of sessions in one process, and workers of all cores; rows i of the benchmark compare with Go.
    "G2": [
        "test_workers_sessions.py::test_one_process_holds_thousands_of_sessions_on_workers_of_all_cores",
        "test_bench.py::test_without_go_its_rows_say_so",
    ],
    # Agents: as many as a machine holds is measured by rows j of the benchmark; over several machines.
    "G5": [
        "netns/test_locust.py::test_agents_of_two_machines_are_led_by_a_third",
        "netns/test_locust.py::test_a_server_that_dies_is_a_failure",
        "test_examples_agents.py::test_locustfile_agents",
        "test_locust_outcomes.py::test_events_come_as_they_are_made",
        "test_locust_outcomes.py::test_a_stream_that_is_cut_off_is_a_failure",
        "test_locust_client.py::test_messages_of_a_websocket",
        "test_locust_user.py::test_each_user_has_its_own_connection_and_closes_it",
    ],
}

SECTIONS = {"A": 12, "B": 7, "C": 8, "D": 16, "E": 5, "F": 17, "G": 5}
"""How many rows each section of the documentation's table has."""

PENDING = {
    "C6": "servers on two hosts that share keys by a file or Redis",
}
"""Rows that no test shows yet."""

MAY_NOT_COUNT = {"skip", "skipif", "xfail", "importorskip"}


@cache
def module(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def names_in(node: ast.AST) -> set[str]:
    """Names of all attributes and variables that stand in it."""
    found = {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
    return found | {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def problem(test: str) -> str | None:
    """Why this test shows nothing."""
    file, _, name = test.partition("::")
    path = TESTS / file
    if not path.is_file():
        return "no such module"
    tree = module(path)
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name]
    if not functions or not name.startswith("test_"):
        return "no such test"
    # What is outside of functions may be for the whole module.
    outside = [n for n in tree.body if not isinstance(n, (ast.FunctionDef, ast.ClassDef))]
    for node in [*functions, *outside]:
        if names := names_in(node) & MAY_NOT_COUNT:
            return f"may not run, or need not pass: {', '.join(names)}"
    return None


def test_every_row_is_shown_or_pending() -> None:
    everything = {f"{section}{n}" for section, count in SECTIONS.items() for n in range(1, count + 1)}
    assert ROWS.keys() | PENDING.keys() == everything
    assert not ROWS.keys() & PENDING.keys()


@pytest.mark.parametrize("row", ROWS)
def test_every_row_is_shown(row: str) -> None:
    assert ROWS[row]
    assert {test: why for test in ROWS[row] if (why := problem(test))} == {}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def test_other(): pass", "no such test"),
        ("@pytest.mark.skip\ndef test_it(): pass", "may not run"),
        ("@pytest.mark.skipif(True, reason='')\ndef test_it(): pass", "may not run"),
        ("@pytest.mark.xfail\ndef test_it(): pass", "may not run"),
        ("def test_it():\n    if x: pytest.skip('')", "may not run"),
        ("pytestmark = pytest.mark.skip\ndef test_it(): pass", "may not run"),
        ("x = pytest.importorskip('y')\ndef test_it(): pass", "may not run"),
    ],
)
def test_what_shows_nothing_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, words: str
) -> None:
    monkeypatch.setitem(globals(), "TESTS", tmp_path)
    (tmp_path / "test_x.py").write_text(code)
    assert words in str(problem("test_x.py::test_it"))
    assert problem("test_y.py::test_it") == "no such module"
    (tmp_path / "test_z.py").write_text("def test_it(): pass")
    assert problem("test_z.py::test_it") is None
