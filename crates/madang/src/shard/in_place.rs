//! Framed in place: a message leaves in its own packet, with what frames it written around it.
//!
//! ```text
//!             │ headroom 16 B   │ payload │ tailroom 16 B │
//!   plain                  │  h │ payload │
//!   sealed               │ len │ payload │      tag      │
//! ```
//!
//! There is no chunk to take, to copy into and to give back. Done where nobody else holds the packet, for a message that is alone
//! in its queue (an echo, an answer: most turns of most sessions have one thing to say) and for a large one. A packet that
//! others hold is never written to.

use madang_packet::{HEADROOM, Packet};
#[cfg(feature = "wan")]
use madang_packet::{PACKET_BYTES_MAX, PacketMut, TAILROOM};
#[cfg(feature = "wan")]
use madang_wire::wan::{RECORD_HEAD, RECORD_TAIL};

use crate::session::{Outbox, Queues};

/// Takes the message in front behind its header, if that can be written into its own packet.
#[inline]
pub(super) fn framed<const HEADER: usize>(
    queues: &mut Queues,
    outbox: &mut Outbox,
    header: impl Fn(u32) -> [u8; HEADER],
) -> Option<Packet> {
    const { assert!(HEADER <= HEADROOM, "a header fits in front of a fresh packet") };
    let mut packet = queues.take_own(outbox, HEADER, 0)?;
    let header = header(packet.len() as u32);
    packet.prepend(&header).expect("the room was looked at");
    Some(packet.freeze())
}

/// Takes the message in front as a bare record that is to be sealed: with room for the length and the tag.
#[cfg(feature = "wan")]
#[inline]
pub(super) fn with_room_for_seal(queues: &mut Queues, outbox: &mut Outbox) -> Option<PacketMut> {
    const { assert!(RECORD_HEAD <= HEADROOM && RECORD_TAIL <= TAILROOM, "a record fits around a fresh packet") };
    let mut packet = queues.take_own(outbox, RECORD_HEAD, RECORD_TAIL)?;
    packet.prepend(&[0; RECORD_HEAD]).expect("the room was looked at");
    // The limit was for content, which has sent it.
    packet.set_limit(PACKET_BYTES_MAX);
    packet.bytes(&[0; RECORD_TAIL]);
    Some(packet)
}

#[cfg(test)]
mod tests {
    use madang_packet::{Depot, PacketMut, PoolSettings};
    use madang_wire::be32;

    use super::*;
    use crate::session::Author;
    use Author::{Content, Droppable, Engine};

    #[derive(Clone, Copy)]
    enum As {
        Framed,
        #[cfg(feature = "wan")]
        Sealed,
    }

    /// What becomes of a queue of these packets.
    fn take(how: As, packets: Vec<Packet>, author: Author) -> Option<Vec<u8>> {
        let (mut queues, mut outbox) = (Queues::new(), Outbox::EMPTY);
        let (count, bytes) = (packets.len(), packets.iter().map(|packet| packet.len()).sum::<usize>());
        let place = packets.first().map(Packet::place);
        for packet in packets {
            queues.push(&mut outbox, packet, author);
        }
        let found = match how {
            As::Framed => framed(&mut queues, &mut outbox, be32::header),
            #[cfg(feature = "wan")]
            As::Sealed => with_room_for_seal(&mut queues, &mut outbox).map(PacketMut::freeze),
        };
        let left = if found.is_some() { (0, 0) } else { (count, bytes) };
        assert_eq!((outbox.len(), queues.bytes()), left, "what is not taken waits on");
        if let Some(frame) = &found {
            assert_eq!(Some(frame.place()), place, "nothing is copied");
        }
        found.map(|frame| frame.to_vec())
    }

    fn packet(depot: &Depot, len: usize, limit: usize) -> PacketMut {
        let mut packet = depot.packet(1).unwrap();
        packet.set_limit(limit);
        packet.bytes(&vec![7; len]);
        packet
    }

    #[test]
    fn only_what_is_nobody_elses_is_framed_where_it_is() {
        let depot = Depot::new(PoolSettings::default());
        let fresh = || packet(&depot, 3, 3).freeze();
        let mut full_in_front = packet(&depot, 3, 3);
        full_in_front.prepend(&[1; HEADROOM]).unwrap();
        let kept = fresh();

        let framed = [0, 0, 0, 3, 7, 7, 7];
        assert_eq!(take(As::Framed, vec![fresh()], Content).as_deref(), Some(&framed[..]));
        assert_eq!(take(As::Framed, vec![fresh()], Droppable).as_deref(), Some(&framed[..]));
        for (name, packets, author) in [
            ("nothing", vec![], Content),
            ("the engine's own word, which is framed already", vec![fresh()], Engine),
            ("a packet that content keeps", vec![kept.clone()], Content),
            ("no room in front", vec![full_in_front.freeze()], Content),
        ] {
            assert_eq!(take(As::Framed, packets, author), None, "{name}");
        }
        assert_eq!(&kept[..], [7; 3]);
    }

    #[cfg(feature = "wan")]
    #[test]
    fn a_record_fits_around_every_packet_whose_writer_kept_to_what_it_asked_for() {
        let depot = Depot::new(PoolSettings::default());
        let least = 64;
        for len in [1, least - 1, least] {
            let record =
                take(As::Sealed, vec![packet(&depot, len, len).freeze()], Content).expect("there is room");
            assert_eq!(record, [vec![0; RECORD_HEAD], vec![7; len], vec![0; RECORD_TAIL]].concat());
        }
        let into_the_tailroom = packet(&depot, least + 1, PACKET_BYTES_MAX).freeze();
        assert_eq!(take(As::Sealed, vec![into_the_tailroom], Content), None);
    }
}
