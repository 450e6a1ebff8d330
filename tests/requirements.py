"""Every requirement of A2A 1.0 that a test can show: its level, its clause, and the tests that show it.

Those marked `kit` are tried by the public kit too (docs/conformance.md), and it alone shows those without a test here.
"""

from dataclasses import dataclass
from typing import Final

MUST, SHOULD, MAY = "MUST", "SHOULD", "MAY"


@dataclass(frozen=True, slots=True)
class Requirement:
    """`id` is the kit's, `section` that of the specification. `tests`: path below tests/ and name, as in `gateway/test_x.py::test_y`."""

    id: str
    level: str
    section: str
    tests: tuple[str, ...]
    kit: bool


def _own(name: str, level: str, section: str, *tests: str) -> Requirement:
    return Requirement(name, level, section, tests, kit=False)


def _kit(name: str, level: str, section: str, *tests: str) -> Requirement:
    return Requirement(name, level, section, tests, kit=True)


ASKED = "adapters/a2a_client/test_requested_versions.py"
AUTHORIZATION = "gateway/ingress/a2a_server/test_authorization.py"
BEHIND = "gateway/behaviour/operation/test_behind_tls.py"
BINDINGS = "gateway/ingress/a2a_server/test_bindings.py"
CARDS = "gateway/ingress/a2a_server/test_cards.py"
CHANNELS = "adapters/a2a_client/test_grpc_channels.py"
DOOR = "gateway/behaviour/delegated_tasks/test_a2a_server.py"
ERRORS = "gateway/ingress/a2a_server/test_errors.py"
GRPC = "gateway/ingress/a2a_server/bindings/test_grpc_server.py"
JSONRPC = "gateway/ingress/a2a_server/bindings/test_jsonrpc.py"
OPERATIONS = "gateway/ingress/a2a_server/test_operations.py"
PINNED = "policies/keys/test_pinned.py"
POSTMAN = "gateway/tasks/webhooks/test_delivery.py"
REST = "gateway/ingress/a2a_server/bindings/test_rest.py"
SIGNED = "registry/cards/test_signed_bytes.py"
SIGNING = "registry/cards/test_republish.py"
STREAMS = "gateway/ingress/a2a_server/test_streams.py"
TENANCY = "gateway/behaviour/authority/test_tenancy.py"
TLS = "adapters/upstream/test_tls.py"
V1 = "adapters/a2a_client/wire/test_v1.py"
VERSIONS = "gateway/ingress/a2a_server/test_versions.py"
WEBHOOKS = "gateway/behaviour/delegated_tasks/test_webhooks.py"
WITHOUT = "gateway/behaviour/authority/test_without_a_token.py"
ADDRESSES = f"{BEHIND}::test_every_address_of_the_card_is_reached_over_tls"
ANSWERS = f"{OPERATIONS}::test_every_operation_answers_as_it_does_over_json_rpc"
HISTORY = f"{DOOR}::test_a_history_is_as_long_as_is_asked_for"
HOOKS = f"{BINDINGS}::test_a_reference_client_keeps_its_webhooks"
PAGES = f"{BINDINGS}::test_a_reference_client_lists_its_tasks_page_by_page"
PURE = f"{CARDS}::test_a_client_of_1_0_gets_a_card_of_1_0_alone"
REFUSALS = f"{OPERATIONS}::test_every_refusal_is_the_same_as_over_json_rpc"
SUBSCRIBERS = f"{BINDINGS}::test_subscribers_at_every_door_see_the_same_in_the_same_order"
PROCESSES = "gateway/ingress/a2a_server/test_subscribers.py::test_subscribers_of_two_processes_see_the_same"
TOKENLESS = f"{OPERATIONS}::test_nothing_is_answered_without_a_valid_token"
UNDECLARED = f"{ERRORS}::test_what_no_card_declares"
UNKNOWN = f"{ERRORS}::test_an_unknown_task"
WAITS = f"{AUTHORIZATION}::test_a_task_tracks_what_waits_and_says_what_for"
WRITTEN = f"{V1}::test_the_reference_implementation_reads_what_we_write"
WRONG = f"{ERRORS}::test_params_that_are_wrong"

REQUIREMENTS: Final = (
    _own("AUTH-INTASK-001", MUST, "7.6.1", WAITS),
    _own("AUTH-INTASK-002", MUST, "7.6.1", WAITS),
    _own("AUTH-INTASK-003", MUST, "7.6.1", WAITS, f"{AUTHORIZATION}::test_an_agent_that_explains_nothing_is_spoken_for"),
    _own("AUTH-INTASK-004", MUST, "7.6.1", f"{AUTHORIZATION}::test_no_credential_travels_inside"),
    _own("AUTH-INTASK-005", SHOULD, "7.6.1", f"{AUTHORIZATION}::test_who_waits_can_be_watched_and_written_to"),
    _own("AUTH-INTASK-006", SHOULD, "7.6.1", f"{AUTHORIZATION}::test_who_waits_can_be_watched_and_written_to"),
    _own("AUTH-SCOPE-001", MUST, "13.1", f"{OPERATIONS}::test_every_operation_asks_who_may"),
    _own("AUTH-SCOPE-002", MUST, "13.1", f"{OPERATIONS}::test_what_is_anothers_reads_like_nothing_and_is_never_listed"),
    _own(
        "AUTH-SCOPE-003",
        MUST,
        "3.3.2",
        f"{OPERATIONS}::test_what_is_anothers_reads_like_nothing_and_is_never_listed",
        f"{TENANCY}::test_a_foreign_task_reads_exactly_like_an_unknown_one",
    ),
    _own(
        "AUTH-SERVER-001",
        SHOULD,
        "7.2",
        f"{TLS}::test_another_name_s_certificate_is_no_proof",
        f"{TLS}::test_a_certificate_that_nobody_vouches_for_is_no_proof",
        f"{CHANNELS}::test_tls_is_spoken_to_the_name_and_not_to_the_address",
    ),
    _own("AUTH-SERVER-002", MUST, "7.4", TOKENLESS, f"{WITHOUT}::test_every_route_but_the_public_ones_wants_a_token"),
    _own("AUTH-TLS-001", MUST, "7.1", ADDRESSES, f"{BEHIND}::test_who_speaks_in_the_clear_is_not_heard"),
    _own("AUTH-TLS-002", SHOULD, "7.1", f"{TLS}::test_the_newest_tls_is_spoken", ADDRESSES),
    _own("BIND-EQUIV-001", MUST, "5.1", f"{OPERATIONS}::test_the_operations_are_those_of_the_specification", ANSWERS),
    _own("BIND-EQUIV-002", MUST, "5.1", ANSWERS, f"{BINDINGS}::test_a_task_is_the_same_whatever_door_it_is_seen_through"),
    _own("BIND-EQUIV-003", MUST, "5.1", REFUSALS),
    _own("BIND-EQUIV-004", MUST, "5.1", TOKENLESS),
    _kit("BIND-FIELD-001", MUST, "5.2", ADDRESSES),
    _kit("CARD-CACHE-001", SHOULD, "8.6.1", PURE),
    _kit("CARD-CACHE-002", SHOULD, "8.6.1", f"{CARDS}::test_a_card_that_is_known_is_not_sent_again"),
    _kit("CARD-CACHE-003", MAY, "8.6.1", f"{CARDS}::test_a_card_that_is_known_is_not_sent_again"),
    _kit("CARD-DISC-001", MUST, "8.1", f"{CARDS}::test_a_reference_client_finds_its_way_by_the_card"),
    _kit("CARD-EXT-001", MUST, "3.1.11", TOKENLESS),
    _kit("CARD-EXT-002", MUST, "3.1.11"),
    _kit("CARD-PROTO-001", MUST, "8.3", PURE),
    _kit("CARD-PROTO-002", MUST, "8.3.1", PURE),
    _own(
        "CARD-SIGN-001",
        MUST,
        "8.4.1",
        f"{SIGNED}::test_the_canonical_form_is_signed_and_no_other",
        f"{SIGNING}::test_the_reference_implementation_verifies_what_we_publish",
    ),
    _own("CARD-SIGN-002", MUST, "8.4.1", f"{SIGNED}::test_signatures_are_no_part_of_what_is_signed"),
    _own("CARD-SIGN-003", MUST, "8.4.2", f"{SIGNED}::test_the_header_names_the_algorithm_and_the_key"),
    _own(
        "CARD-SIGN-004", MUST, "8.4.3", f"{PINNED}::test_an_expired_key_signs_nothing_any_more", f"{PINNED}::test_nothing_else_is_believed"
    ),
    _kit("CARD-STRUCT-001", MUST, "4.4.1", PURE),
    _kit("CORE-CANCEL-001", MUST, "3.1.5", ANSWERS),
    _kit("CORE-CANCEL-002", MUST, "3.1.5", REFUSALS),
    _kit("CORE-CANCEL-003", MUST, "3.1.5", REFUSALS),
    _kit("CORE-CAP-001", MUST, "3.3.4", UNDECLARED),
    _kit("CORE-CAP-002", MUST, "3.3.4"),
    _kit("CORE-CAP-003", MUST, "3.3.4", UNDECLARED),
    _kit("CORE-CAP-004", MUST, "3.3.4", f"{ERRORS}::test_an_extension_that_the_agent_requires"),
    _kit("CORE-ERR-001", MUST, "3.3.2", WRONG),
    _kit("CORE-ERR-002", MUST, "3.3.2", WRONG),
    _kit("CORE-EXECUTION-MODE-001", MUST, "3.2.2", f"{DOOR}::test_a_blocking_send_waits_for_the_end"),
    _kit("CORE-EXECUTION-MODE-002", MUST, "3.2.2", f"{DOOR}::test_who_does_not_wait_asks_until_it_is_done"),
    _kit("CORE-GET-001", MUST, "3.1.3", ANSWERS),
    _kit("CORE-GET-002", MUST, "3.1.3", REFUSALS),
    _kit("CORE-HIST-001", SHOULD, "3.2.4", HISTORY),
    _kit("CORE-HIST-002", MUST, "3.2.4", HISTORY),
    _kit("CORE-HIST-003", SHOULD, "3.2.4", HISTORY),
    _kit("CORE-HIST-004", MAY, "3.2.4"),
    _kit("CORE-HIST-005", SHOULD, "3.2.4", f"{BINDINGS}::test_a_task_is_the_same_whatever_door_it_is_seen_through"),
    _kit("CORE-HIST-006", SHOULD, "3.2.4", f"{BINDINGS}::test_a_task_is_the_same_whatever_door_it_is_seen_through"),
    _kit("CORE-LIST-001", MUST, "3.1.4", f"{OPERATIONS}::test_what_is_anothers_reads_like_nothing_and_is_never_listed"),
    _kit("CORE-LIST-002", MUST, "3.1.4", PAGES),
    _kit("CORE-LIST-003", MUST, "3.1.4", PAGES),
    _kit("CORE-LIST-004", MUST, "3.1.4", PAGES),
    _kit("CORE-LIST-005", MUST, "3.1.4"),
    _kit("CORE-MULTI-001", MAY, "3.4.1", f"{BINDINGS}::test_a_reference_client_sends_reads_and_goes_on"),
    _kit("CORE-MULTI-001a", MUST, "3.4.1", f"{BINDINGS}::test_a_reference_client_sends_reads_and_goes_on"),
    _kit("CORE-MULTI-002", MAY, "3.4.1", PAGES),
    _kit("CORE-MULTI-002a", MUST, "3.4.1"),
    _kit("CORE-MULTI-003", MUST, "3.4.2", PAGES),
    _kit("CORE-MULTI-004", MUST, "3.4.2", REFUSALS),
    _kit("CORE-MULTI-005", MUST, "3.4.3", f"{BINDINGS}::test_a_reference_client_sends_reads_and_goes_on"),
    _kit("CORE-MULTI-006", MUST, "3.4.3", f"{DOOR}::test_a_task_and_a_context_that_do_not_belong_together_are_refused"),
    _kit("CORE-SEND-001", MUST, "3.1.1", ANSWERS),
    _kit("CORE-SEND-002", MUST, "3.1.1", REFUSALS),
    _kit("CORE-SEND-003", MUST, "3.1.1"),
    _kit("CORE-STREAM-001", MUST, "3.1.2", ANSWERS),
    _kit("CORE-STREAM-002", MUST, "3.1.2"),
    _kit("CORE-STREAM-003", MUST, "3.1.2", f"{DOOR}::test_a_stream_shows_the_task_then_its_events_in_their_order"),
    _kit("DM-ART-001", MUST, "4.1.7", WRITTEN),
    _kit("DM-MSG-001", MUST, "4.1.4", f"{V1}::test_a_message_crosses_the_wire_unchanged"),
    _kit("DM-MSG-002", MUST, "4.1.5", WRITTEN),
    _kit("DM-PART-001", MUST, "4.1.6", f"{V1}::test_what_is_invalid_is_refused_by_the_name_of_its_field"),
    _kit("DM-SERIAL-001", MUST, "5.5", WRITTEN),
    _kit("DM-SERIAL-002", MUST, "5.5", WRITTEN),
    _kit("DM-SERIAL-003", MUST, "5.6.1", WRITTEN),
    _kit("DM-SERIAL-004", MUST, "5.7", f"{V1}::test_what_is_invalid_is_refused_by_the_name_of_its_field"),
    _kit("DM-SERIAL-005", SHOULD, "5.7", f"{V1}::test_all_of_a_send_request_is_read"),
    _kit("DM-STATUS-001", MUST, "4.1.2", WRITTEN),
    _kit("DM-TASK-001", MUST, "4.1.1", f"{V1}::test_a_task_crosses_the_wire_unchanged"),
    _kit("DM-TASK-002", MUST, "4.1.3", WRITTEN),
    _kit("GRPC-ERR-001", MUST, "10.6", f"{GRPC}::test_every_error_has_its_status_and_its_details"),
    _kit("GRPC-ERR-002", MUST, "5.4", f"{GRPC}::test_every_error_has_its_status_and_its_details"),
    _kit("GRPC-ERR-003", MUST, "10.7", f"{GRPC}::test_a_stream_brings_every_event_and_ends"),
    _kit("GRPC-META-001", MUST, "10.2", f"{GRPC}::test_extensions_and_the_idempotency_key_are_metadata"),
    _kit("GRPC-SVC-001", MUST, "10.1", f"{GRPC}::test_every_method_of_both_services_is_served"),
    _kit("GRPC-SVC-002", MUST, "10.1", f"{GRPC}::test_every_method_of_both_services_is_served"),
    _own("GRPC-SVC-003", MUST, "10.1", ADDRESSES),
    _kit("HTTP_JSON-ERR-001", MUST, "11.6", UNKNOWN),
    _kit("HTTP_JSON-ERR-002", MUST, "11.6", UNKNOWN),
    _kit("HTTP_JSON-QP-001", MUST, "11.5", f"{REST}::test_tasks_are_listed_as_the_query_asks"),
    _kit("HTTP_JSON-SSE-001", MUST, "11.7", f"{STREAMS}::test_a_stream_is_numbered_and_taken_up_anywhere"),
    _kit("HTTP_JSON-STATUS-001", MUST, "5.4", UNDECLARED, f"{ERRORS}::test_a_task_that_is_over"),
    _kit("HTTP_JSON-SVC-001", MUST, "11.1", f"{REST}::test_an_answer_has_the_media_type_of_the_request"),
    _kit("HTTP_JSON-SVC-002", MUST, "11.2", f"{ERRORS}::test_a_version_that_is_not_served"),
    _kit("HTTP_JSON-URL-001", MUST, "11.3", f"{REST}::test_each_version_has_its_own_paths"),
    _kit("HTTP_JSON-URL-002", MUST, "11.3", f"{REST}::test_a_path_that_is_none_and_a_verb_that_it_does_not_take"),
    _kit("JSONRPC-ERR-001", MUST, "9.5", WRONG),
    _kit("JSONRPC-ERR-002", MUST, "9.5", UNKNOWN),
    _kit("JSONRPC-ERR-003", MUST, "9.5", UNKNOWN),
    _kit("JSONRPC-FMT-001", MUST, "9.1", f"{JSONRPC}::test_an_envelope_that_is_none"),
    _kit("JSONRPC-FMT-002", MUST, "9.1", f"{ERRORS}::test_a_body_that_is_no_json"),
    _kit("JSONRPC-SSE-001", MUST, "9.4.2", f"{STREAMS}::test_a_stream_is_numbered_and_taken_up_anywhere"),
    _kit("JSONRPC-SSE-002", MUST, "5.4", f"{ERRORS}::test_a_body_that_is_no_json", UNDECLARED),
    _kit("JSONRPC-SVC-001", MUST, "9.1", f"{VERSIONS}::test_each_version_has_methods_and_words_of_its_own"),
    _kit("JSONRPC-SVC-002", MUST, "9.2", f"{JSONRPC}::test_a_version_is_asked_for_in_the_header_or_else_the_query"),
    _kit("PUSH-CREATE-001", MUST, "3.1.7", HOOKS),
    _kit("PUSH-CREATE-002", MUST, "3.1.7", f"{POSTMAN}::test_every_event_after_the_config_arrives_in_order"),
    _kit("PUSH-DEL-001", MUST, "3.1.10", HOOKS),
    _kit("PUSH-DEL-002", MUST, "3.1.10", HOOKS),
    _kit("PUSH-DELIVER-001", MUST, "4.3.3", f"{WEBHOOKS}::test_a_webhook_is_told_of_a_task_from_its_opening_on"),
    _kit("PUSH-DELIVER-002", MUST, "4.3.3", f"{POSTMAN}::test_what_fails_is_tried_again_and_what_is_behind_it_waits"),
    _kit("PUSH-DELIVER-003", MUST, "4.3.3", f"{POSTMAN}::test_a_1_0_webhook_gets_a_stream_response"),
    _kit("PUSH-GET-001", MUST, "3.1.8", HOOKS),
    _kit("PUSH-GET-002", MUST, "3.1.8", REFUSALS),
    _kit("PUSH-LIST-001", MUST, "3.1.9", HOOKS),
    _kit("STREAM-ORDER-001", MUST, "3.5.2", SUBSCRIBERS),
    _kit("STREAM-ORDER-002", MUST, "3.5.2", SUBSCRIBERS, PROCESSES),
    _kit("STREAM-ORDER-003", MUST, "3.5.2", SUBSCRIBERS, PROCESSES),
    _kit("STREAM-ORDER-004", MUST, "3.5.2", SUBSCRIBERS),
    _kit("STREAM-SUB-001", MUST, "3.1.6", ANSWERS),
    _kit("STREAM-SUB-002", MUST, "3.1.6", ANSWERS),
    _kit("STREAM-SUB-003", MUST, "3.1.6", REFUSALS),
    _kit("STREAM-SUB-004", MUST, "3.1.6", REFUSALS),
    _own("VER-CLIENT-001", MUST, "3.6.1", f"{ASKED}::test_every_request_says_its_version"),
    _own(
        "VER-CLIENT-002",
        MUST,
        "3.6",
        f"{VERSIONS}::test_a_patch_number_is_passed_over",
        f"{GRPC}::test_a_version_that_is_served_may_be_named",
        f"{VERSIONS}::test_no_card_of_ours_has_a_patch_number_and_one_of_anothers_is_read_without",
    ),
    _own("VER-SERVER-001", MUST, "3.6.2", f"{VERSIONS}::test_each_version_has_methods_and_words_of_its_own"),
    _kit("VER-SERVER-002", MUST, "3.6.2", f"{ERRORS}::test_a_version_that_is_not_served", f"{GRPC}::test_another_version_is_not_supported"),
    _kit("VER-SERVER-003", MUST, "3.6.2", f"{VERSIONS}::test_each_version_has_methods_and_words_of_its_own"),
)
