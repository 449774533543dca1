//! The same program on std's sockets and on pila's: the same values, the same errors, the same text.
//!
//! What std's own tests of its sockets pin, and what its documentation promises, one function each in `tcp.rs`, `udp.rs`
//! and `unix.rs`. Those files are compiled twice, and differ in nothing but what `types` stands for. What a function
//! returns must be the same both times, and every descriptor must be closed again when it has returned.

#![allow(clippy::duplicate_mod, reason = "that is the point")]

use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use net_support::{again_portably, bounded};

#[path = "../net_support/mod.rs"]
mod net_support;
mod outcome;

mod with_pila;
mod with_std;

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("Linux has it").count()
}

/// What `body` gives on a thread of its own, which leaves no descriptor behind.
#[track_caller]
fn outcome_of<T: Send + 'static>(body: fn() -> T) -> T {
    let before = descriptors();
    let outcome = bounded(body);
    // A thread that looked up names gives back what it used for one when it rests, for this test or for the one before it.
    let patience = Instant::now() + Duration::from_secs(5);
    while descriptors() > before && Instant::now() < patience {
        std::thread::yield_now();
    }
    assert!(descriptors() <= before, "{} descriptors, {before} before", descriptors());
    outcome
}

/// One after the other: they count the descriptors of the whole process.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[track_caller]
fn assert_same<T: Debug + PartialEq + Send + 'static>(with_std: fn() -> T, with_pila: fn() -> T) {
    let _turn = turn();
    let expected = outcome_of(with_std);
    assert_eq!(outcome_of(with_pila), expected, "std's is on the right");
}

/// A test for each of these functions.
macro_rules! same {
    ($module:ident: $($name:ident),+ $(,)?) => {
        mod $module {
            $(
                #[test]
                fn $name() {
                    super::assert_same(
                        super::with_std::$module::$name,
                        super::with_pila::$module::$name,
                    );
                }
            )+
        }
    };
}

same! { tcp:
    a_foreign_address_cannot_be_bound,
    an_address_cannot_be_bound_twice,
    an_address_can_be_bound_again_at_once,
    no_address_is_invalid,
    connecting_where_nobody_listens_is_refused,
    connecting_by_name_tries_its_addresses,
    connecting_within_a_time,
    both_ends_know_both_names,
    connections_are_served_in_a_row,
    connections_are_served_though_they_interleave,
    listeners_can_be_cloned,
    clones_accept_at_once,
    incoming_never_ends,
    a_nonblocking_listener_does_not_wait,
    a_read_gives_what_is_there,
    empty_reads_and_writes_do_nothing,
    several_buffers_are_one,
    peeking_takes_nothing,
    much_arrives_whole,
    the_end_is_read_again_and_again,
    writing_to_whom_has_gone_fails_in_the_end,
    after_shutting_down_writing_the_other_may_answer,
    shutting_down_is_for_all_clones,
    shutting_down_reading_wakes_the_reader,
    clones_read_from_one_stream,
    clones_write_to_one_stream,
    a_clone_can_be_made_of_what_is_being_read,
    nothing_is_read_and_written_without_a_wait,
    of_very_many_buffers_the_first_are_taken,
    timeouts_may_be_longer_than_time,
    timeouts_that_others_set_are_obeyed,
    a_listener_and_its_connections_obey_a_timeout_of_its,
    to_others_a_stream_blocks_unless_it_was_set,
    timeouts_are_kept,
    a_timeout_of_zero_is_invalid,
    a_read_is_out_of_time,
    a_read_in_time_leaves_the_timeout,
    a_write_is_out_of_time,
    a_nonblocking_stream_does_not_wait,
    options_are_kept,
    options_are_set_through_socket2,
    a_port_is_shared_through_socket2,
    errors_are_taken_once,
    debug_shows_addresses_and_descriptor,
}

same! { udp:
    a_foreign_address_cannot_be_bound,
    an_address_cannot_be_bound_twice,
    no_address_is_invalid,
    a_datagram_arrives_with_its_sender,
    both_ends_know_both_names,
    a_connected_socket_sends_and_receives,
    a_connected_socket_hears_its_peer_only,
    an_unconnected_socket_cannot_send,
    peeking_takes_nothing,
    what_does_not_fit_is_cut_off,
    an_empty_datagram_arrives,
    too_long_a_datagram_is_refused,
    a_closed_port_refuses,
    clones_receive_from_one_socket,
    clones_send_from_one_socket,
    timeouts_are_kept,
    a_timeout_of_zero_is_invalid,
    receiving_is_out_of_time,
    receiving_in_time_leaves_the_timeout,
    a_nonblocking_socket_does_not_wait,
    options_are_kept,
    multicast_options_are_kept,
    groups_are_joined_and_left,
    broadcasting_has_to_be_allowed,
    shutting_down_wakes_the_receiver,
    debug_shows_address_and_descriptor,
}

same! { unix:
    a_stream_goes_there_and_back,
    pairs_have_no_names,
    several_buffers_are_one,
    nothing_is_read_and_written_without_a_wait,
    clones_read_from_one_stream,
    the_end_is_read_again_and_again,
    shutting_down_is_for_all_clones,
    shutting_down_reading_wakes_the_reader,
    a_listener_serves_in_a_row,
    incoming_never_ends,
    a_nonblocking_listener_does_not_wait,
    a_nonblocking_stream_does_not_wait,
    what_cannot_be_connected_to,
    what_cannot_be_bound,
    a_path_may_be_as_long_as_it_fits,
    timeouts_are_kept,
    a_timeout_of_zero_is_invalid,
    a_read_is_out_of_time,
    a_read_in_time_leaves_the_timeout,
    a_write_is_out_of_time,
    errors_are_taken_once,
    debug_shows_names_and_descriptor,
    abstract_streams_go_there_and_back,
    abstract_names_are_told,
    a_datagram_arrives_with_its_sender,
    a_datagram_of_whom_has_no_name,
    a_sender_can_be_answered,
    a_connected_datagram_socket_sends,
    datagrams_of_a_pair_go_there_and_back,
    abstract_datagrams_arrive,
    what_does_not_fit_is_cut_off,
    an_empty_datagram_arrives,
    too_long_a_datagram_is_refused,
    who_has_gone_refuses_datagrams,
    datagrams_wait_for_room,
    sending_without_room_is_out_of_time,
    receiving_after_shutdown_gives_nothing,
}

#[test]
fn all_this_holds_portably() {
    let _turn = turn();
    again_portably();
}
