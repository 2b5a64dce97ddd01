//! The contract suite: every driver runs the same cases.
//!
//! A case is a function over a [`rig::Rig`]; [`station::Station`] puts a referee beside the driver, which checks on each
//! completion what holds always (one terminal per operation, silence while paused, no name after its retirement, …), and
//! at the end that nothing is left. The table at the bottom makes each case a test of each driver:
//!
//! - `simulated`: the simulated world on a good day;
//! - `unruly`: the same with all that the contract permits, over a number of seeds (`MADANG_SEED=n` replays one);
//! - `readiness` and `uring`: this machine. Where io_uring is refused its cases say so in a line.

#![allow(unreachable_pub)] // a test binary has no outside

mod cases_stream;
mod rig;
mod rig_sim;
#[cfg(unix)]
mod rig_system;
mod station;

macro_rules! contract {
    ($($file:ident { $($case:ident,)+ })+) => {
        mod simulated {
            $($(#[test] fn $case() { crate::rig_sim::run_calm(crate::$file::$case) })+)+
        }
        mod unruly {
            $($(#[test] fn $case() { crate::rig_sim::run_unruly(crate::$file::$case) })+)+
        }
        #[cfg(unix)]
        mod readiness {
            use madang_driver::readiness::Readiness;
            $($(#[test] fn $case() { crate::rig_system::run::<Readiness>(crate::$file::$case) })+)+
        }
    };
}

contract! {
    cases_stream {
        k07_bytes_keep_their_order_both_ways,
        k07_a_message_cut_anywhere_arrives_whole,
        k07_a_send_of_any_number_of_pieces_leaves_whole_and_in_order,
        k07_short_writes_to_a_slow_reader_continue_at_the_exact_byte,
        data_that_came_before_the_first_receive_is_told,
        s03_many_connections_do_not_mix_their_bytes,
        k03_half_close_sends_the_tail_and_drains_the_peer,
    }
}
