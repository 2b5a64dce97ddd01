//! What encryption costs: the gate's look at a stranger, a handshake on either side, records of the sizes of games, and
//! the price of keeping keys small.
//!
//! `cargo bench -p madang-wire --features wan`

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use madang_wire::wan::{
    ANSWER_MAX, Accept, Answer, ExpectAnswer, ExpectSeal, Gate, Hello, LinkSecret, LogIn, PREAMBLE,
    RECORD_HEAD, RECORD_TAIL, SEAL_FRAME, SecretKey, Secured, ServerKeys, Suite, seal_link,
};
use madang_wire::{FrameLimit, Kind, lan};

const SIZES: [usize; 4] = [64, 256, 1200, 8192];

fn keys() -> ServerKeys {
    ServerKeys::new([SecretKey::from_bytes(&mut [1; 32])]).expect("one key")
}

fn preamble(keys: &ServerKeys, suite: Suite) -> ([u8; PREAMBLE], ExpectAnswer) {
    let mut preamble = [0; PREAMBLE];
    let server = keys.public().next().expect("one key");
    let hello = Hello { suite, ..Hello::default() };
    let (_, client) = ExpectAnswer::begin(&server, &hello, [2; 32], &mut preamble).expect("there is room");
    (preamble, client)
}

fn respond(keys: &ServerKeys, preamble: &[u8], answer: &mut [u8]) -> (usize, Secured) {
    let Ok(Gate::Passed(preamble)) = keys.gate(preamble) else { panic!("it passes") };
    let verdict = preamble.read(FrameLimit::DEFAULT, [3; 32]).expect("it opens");
    verdict.accept(&Accept::default(), answer).expect("there is room")
}

/// Both ends, the log-in said: the server takes messages.
fn secured(suite: Suite) -> (Secured, Secured) {
    let keys = keys();
    let (preamble, client) = preamble(&keys, suite);
    let (mut answer, mut room) = ([0; ANSWER_MAX], [0; ANSWER_MAX]);
    let (len, mut server) = respond(&keys, &preamble, &mut answer);
    let Ok(Answer::Accepted(_, mut client)) = client.read(&answer[..len], &mut room) else { panic!() };
    let mut log_in = [0; RECORD_HEAD + 10 + RECORD_TAIL];
    LogIn::default().to_frame(&mut log_in[RECORD_HEAD..]).expect("there is room");
    client.sealing.seal(&mut log_in).expect("it fits");
    server.opening.next(&mut log_in).expect("it opens");
    (client, server)
}

/// A record with one message whose frame has `size` bytes, not sealed.
fn record(size: usize) -> Vec<u8> {
    let mut record = vec![7; RECORD_HEAD + size + RECORD_TAIL];
    let header = lan::header(Kind::Message, (size - lan::HEADER) as u32);
    record[RECORD_HEAD..][..lan::HEADER].copy_from_slice(&header);
    record
}

fn gate(c: &mut Criterion) {
    let keys = keys();
    let (sound, _) = preamble(&keys, Suite::AesGcm);
    let mut wrong = sound;
    wrong[90] ^= 1;
    let mut group = c.benchmark_group("gate");
    group.bench_function("right tag", |b| b.iter(|| keys.gate(black_box(&sound)).is_ok()));
    group.bench_function("wrong tag", |b| b.iter(|| keys.gate(black_box(&wrong)).is_err()));
    group.bench_function("stranger", |b| b.iter(|| keys.gate(black_box(b"GET / HTTP/1.1")).is_err()));
    group.finish();
}

fn handshake(c: &mut Criterion) {
    let keys = keys();
    let mut group = c.benchmark_group("handshake");
    for suite in Suite::ALL {
        let (sound, _) = preamble(&keys, suite);
        let name = |side: &str| BenchmarkId::new(side, format!("{suite:?}"));
        group.bench_function(name("server"), |b| {
            b.iter(|| respond(&keys, black_box(&sound), &mut [0; ANSWER_MAX]).0);
        });
        let mut answer = [0; ANSWER_MAX];
        let (len, _) = respond(&keys, &sound, &mut answer);
        group.bench_function(name("client"), |b| {
            b.iter(|| {
                let (_, client) = preamble(&keys, suite);
                client.read(black_box(&answer[..len]), &mut [0; ANSWER_MAX]).is_ok()
            });
        });
    }
    let (sound, _) = preamble(&keys, Suite::AesGcm);
    group.bench_function("server, message 1 alone", |b| {
        let Ok(Gate::Passed(preamble)) = keys.gate(&sound) else { panic!("it passes") };
        b.iter(|| preamble.read(FrameLimit::DEFAULT, black_box([3; 32])).is_ok());
    });
    let secret = LinkSecret::derive("0123456789abcdef0123456789abcdef").expect("long enough");
    let mut first = [0; SEAL_FRAME];
    ExpectSeal::begin(&secret, FrameLimit::DEFAULT, [2; 32], &mut first).expect("there is room");
    group.bench_function("link server", |b| {
        b.iter(|| {
            let mut out = [0; SEAL_FRAME];
            seal_link(&secret, black_box(&first), FrameLimit::DEFAULT, [3; 32], &mut out).is_ok()
        });
    });
    let mut wrong = first;
    wrong[50] ^= 1;
    group.bench_function("link server, wrong secret", |b| {
        b.iter(|| {
            let mut out = [0; SEAL_FRAME];
            seal_link(&secret, black_box(&wrong), FrameLimit::DEFAULT, [3; 32], &mut out).is_err()
        });
    });
    group.finish();
}

fn seal(c: &mut Criterion) {
    for (ways, kept) in [("key kept", true), ("key expanded each time", false)] {
        let mut group = c.benchmark_group(format!("seal, {ways}"));
        for suite in Suite::ALL {
            for size in SIZES {
                let mut record = record(size);
                group.throughput(Throughput::Bytes(size as u64));
                group.bench_function(BenchmarkId::new(format!("{suite:?}"), size), |b| {
                    let (client, _) = secured(suite);
                    if kept {
                        let mut sealing = client.sealing.expand();
                        b.iter(|| sealing.seal(black_box(&mut record)).is_ok());
                    } else {
                        let mut sealing = client.sealing;
                        b.iter(|| sealing.seal(black_box(&mut record)).is_ok());
                    }
                });
            }
        }
        group.finish();
    }
}

/// Opening needs sealed records in order: they are made in batches outside the time.
fn open(c: &mut Criterion) {
    for (ways, kept) in [("key kept", true), ("key expanded each time", false)] {
        let mut group = c.benchmark_group(format!("open, {ways}"));
        for suite in Suite::ALL {
            for size in SIZES {
                let (client, server) = secured(suite);
                let (mut sealing, mut opening) = (client.sealing.expand(), server.opening);
                group.throughput(Throughput::Bytes(size as u64));
                let mut fresh = || {
                    let mut record = record(size);
                    sealing.seal(&mut record).expect("it fits");
                    record
                };
                group.bench_function(BenchmarkId::new(format!("{suite:?}"), size), |b| {
                    if kept {
                        let mut opening = opening.expanded();
                        b.iter_batched(
                            &mut fresh,
                            |mut record| opening.next(&mut record).expect("it opens"),
                            BatchSize::SmallInput,
                        );
                    } else {
                        b.iter_batched(
                            &mut fresh,
                            |mut record| opening.next(&mut record).expect("it opens"),
                            BatchSize::SmallInput,
                        );
                    }
                });
            }
        }
        group.finish();
    }
}

fn expand(c: &mut Criterion) {
    let mut group = c.benchmark_group("expand a key");
    for suite in Suite::ALL {
        let (mut client, _) = secured(suite);
        group.bench_function(format!("{suite:?}"), |b| {
            b.iter(|| {
                black_box(client.sealing.expanded());
            });
        });
    }
    group.finish();
}

criterion_group!(benches, gate, handshake, seal, open, expand);
criterion_main!(benches);
