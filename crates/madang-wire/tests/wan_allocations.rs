//! Once a handshake is over, nothing on a record's way asks the allocator.
#![cfg(feature = "wan")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use madang_wire::wan::{
    ANSWER_MAX, Accept, Answer, ExpectAnswer, Gate, Hello, LogIn, PREAMBLE, RECORD_HEAD, RECORD_TAIL,
    REKEY_RECORDS, SecretKey, Secured, ServerKeys, Step, Suite,
};
use madang_wire::{Kind, lan};

thread_local! {
    /// How often this thread asked the allocator for something.
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.set(ASKED.get() + 1);
        // SAFETY: as our caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as our caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Both ends, the client's log-in said.
fn secured(keys: &ServerKeys, suite: Suite) -> (Secured, Secured) {
    let server = keys.public().next().unwrap();
    let (mut preamble, mut answer, mut room) = ([0; PREAMBLE], [0; ANSWER_MAX], [0; ANSWER_MAX]);
    let hello = Hello { suite, ..Hello::default() };
    let (_, client) = ExpectAnswer::begin(&server, &hello, [2; 32], &mut preamble).unwrap();
    let Ok(Gate::Passed(passed)) = keys.gate(&preamble) else { panic!("it passes") };
    let verdict = passed.read(hello.frame_limit, [3; 32]).unwrap();
    let (len, mut server) = verdict.accept(&Accept::default(), &mut answer).unwrap();
    let Ok(Answer::Accepted(_, mut client)) = client.read(&answer[..len], &mut room) else { panic!() };
    let mut log_in = [0; RECORD_HEAD + 10 + RECORD_TAIL];
    LogIn::default().to_frame(&mut log_in[RECORD_HEAD..]).unwrap();
    client.sealing.seal(&mut log_in).unwrap();
    server.opening.next(&mut log_in).unwrap();
    (client, server)
}

#[test]
fn records_and_the_gate_ask_nothing_of_the_allocator() {
    let keys = ServerKeys::new([SecretKey::from_bytes(&mut [1; 32])]).unwrap();
    for suite in Suite::ALL {
        let before = ASKED.get();
        let (mut client, mut server) = secured(&keys, suite);
        assert!(ASKED.get() > before, "the counter counts: a handshake allocates");

        let mut record = [0; RECORD_HEAD + 2 * 12 + RECORD_TAIL];
        let mut preamble = [0; PREAMBLE];
        let pinned = keys.public().next().unwrap();
        ExpectAnswer::begin(&pinned, &Hello::default(), [2; 32], &mut preamble).unwrap();
        let before = ASKED.get();
        // Over a change of keys, each way of holding them.
        for round in 0..REKEY_RECORDS + 10 {
            for at in [RECORD_HEAD, RECORD_HEAD + 12] {
                record[at..][..4].copy_from_slice(&lan::header(Kind::Message, 8));
            }
            match round % 2 {
                0 => client.sealing.seal(&mut record).unwrap(),
                _ => client.sealing.expanded().seal(&mut record).unwrap(),
            }
            let Ok(Step::Frame { used, .. }) = server.opening.next(&mut record) else { panic!("a frame") };
            let Ok(Step::Frame { .. }) = server.opening.expanded().next(&mut record[used..]) else {
                panic!("the other")
            };
        }
        for round in 0..1000 {
            preamble[93] ^= 1;
            assert_eq!(keys.gate(&preamble).is_ok(), round % 2 == 1);
        }
        record[9] ^= 1;
        assert!(server.opening.next(&mut record).is_err());
        assert_eq!(ASKED.get() - before, 0, "{suite:?}");
    }
}
