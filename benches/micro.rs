//! The cost of single parts: hashing a piece, reading messages from the wire, the engine for one block.
//!
//!     cargo bench --bench micro

use std::hint::black_box;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use flashmob::sim::{Lab, LabSpec};
use flashmob::swarm::wire::{Decoder, Message, encode};
use flashmob::units::PieceIndex;
use sha1::{Digest, Sha1};
use sha2::Sha256;

const PIECE: usize = 4 << 20;

fn hashing(c: &mut Criterion) {
    let piece = vec![7u8; PIECE];
    let mut group = c.benchmark_group("hash of a 4 MiB piece");
    group.throughput(Throughput::Bytes(PIECE as u64));
    group.bench_function("SHA-1", |b| b.iter(|| Sha1::digest(black_box(&piece))));
    group.bench_function("SHA-256", |b| b.iter(|| Sha256::digest(black_box(&piece))));
    group.finish();
}

/// Blocks as they come from a socket, in reads of 64 KiB.
fn codec(c: &mut Criterion) {
    let mut stream = BytesMut::new();
    for block in 0..256u32 {
        let data = Bytes::from(vec![7; 16 * 1024]);
        encode(&Message::Piece { piece: PieceIndex(1), offset: block * 16 * 1024, data }, &mut stream);
    }
    let mut group = c.benchmark_group("messages of a 4 MiB piece");
    group.throughput(Throughput::Bytes(PIECE as u64));
    group.bench_function("decode", |b| {
        b.iter(|| {
            let mut decoder = Decoder::new(100);
            let mut messages = 0;
            for read in stream.chunks(64 * 1024) {
                decoder.push(read);
                while let Ok(Some(message)) = decoder.next_message() {
                    black_box(message);
                    messages += 1;
                }
            }
            messages
        });
    });
    group.finish();
}

/// The engines of a whole lab: picking, offers, grants, codec-free messages, and the model's links around
/// them.
fn engine(c: &mut Criterion) {
    let mut group = c.benchmark_group("a lab in virtual time, for each block received");
    for (terminals, pieces) in [(8usize, 64u32), (8, 512), (40, 64)] {
        let blocks = terminals as u64 * u64::from(pieces) * 16;
        group.throughput(Throughput::Elements(blocks)).sample_size(10);
        group.bench_function(format!("{terminals} terminals, {pieces} pieces of 16 blocks"), |b| {
            let spec = || {
                let mut spec = LabSpec::new(terminals, pieces, 256 * 1024, 1);
                spec.blank = true;
                Lab::new(spec)
            };
            b.iter_batched(spec, |mut lab| lab.run(Duration::from_secs(3600)), BatchSize::PerIteration);
        });
    }
    group.finish();
}

criterion_group!(benches, hashing, codec, engine);
criterion_main!(benches);
