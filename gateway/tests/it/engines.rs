//! What both I/O engines promise, over real loopback sockets.
//!
//! Each scenario is one function, generic over the engine, and runs as
//! `engines::uring::…` and `engines::epoll::…`. Where io_uring is forbidden on
//! purpose (`SALLYPORT_TEST_WITHOUT_URING=1`) the uring ones check that the probe
//! says so in words an operator can use; they are never skipped.

mod harness;
mod limits;
mod scenarios;

macro_rules! both {
    ($($path:ident :: $name:ident),* $(,)?) => {
        mod uring {
            $(#[test]
            fn $name() {
                if super::harness::uring_is_here() {
                    super::$path::$name::<gateway::engine::uring::UringEngine>();
                }
            })*
        }
        mod epoll {
            $(#[test]
            fn $name() {
                super::$path::$name::<gateway::engine::epoll::EpollEngine>();
            })*
        }
    };
}

both!(
    scenarios::echoes_every_size,
    scenarios::a_mebibyte_each_way,
    scenarios::a_thousand_at_once,
    scenarios::few_and_small_buffers_lose_nothing,
    scenarios::starved_receives_start_when_there_are_buffers,
    scenarios::peer_ends_in_order,
    scenarios::peer_resets,
    scenarios::close_cancels_a_send,
    scenarios::a_stalled_reader_keeps_its_send,
    scenarios::one_buffer_goes_to_many,
    scenarios::pause_stops_and_resume_loses_nothing,
    scenarios::full_keeps_the_backlog,
    scenarios::a_stale_id_matches_nothing,
    scenarios::shutdown_follows_the_send,
    scenarios::refused_sends_come_back,
    scenarios::refused_connect_is_reported,
    scenarios::connects_from_a_given_address,
    scenarios::close_while_connecting,
    scenarios::datagrams_stay_apart,
    scenarios::datagrams_to_nobody_are_refused,
    scenarios::two_listeners_share_the_last_slots,
    scenarios::stops_to_listen,
    scenarios::tells_the_peer_over_ipv6,
    scenarios::wakes_a_reactor,
    scenarios::drops_in_the_middle_of_everything,
    limits::descriptors_return,
    limits::serves_at_the_open_file_limit,
    limits::accepting_goes_on_by_itself,
    limits::probe_explains_a_filter,
);
