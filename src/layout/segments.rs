//! The ranges of a source that make up one block device: a partition, or a logical volume with its segments
//! and stripes.
//!
//! Invariant: each byte of the device has exactly one place, and lies inside one segment.

use std::ops::Range;

/// A part of a device that lies on one or more stripes in turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Bytes of the device.
    pub len: u64,
    /// Bytes of a stripe before the next one begins. It divides `len` by the number of stripes.
    pub stripe_size: u64,
    /// Where each stripe begins.
    pub stripes: Vec<u64>,
}

impl Segment {
    /// `len` bytes from `start`.
    pub fn linear(start: u64, len: u64) -> Self {
        Segment { len, stripe_size: len, stripes: vec![start] }
    }

    fn count(&self) -> u64 {
        self.stripes.len() as u64
    }

    /// Bytes of stripe number `stripe` that come before byte `at` of the segment.
    fn before(&self, stripe: u64, at: u64) -> u64 {
        let row = self.stripe_size * self.count();
        let rest = (at % row).saturating_sub(stripe * self.stripe_size);
        at / row * self.stripe_size + rest.min(self.stripe_size)
    }
}

/// All segments of a device, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Segments {
    list: Vec<Segment>,
}

impl Segments {
    /// `None` if a segment is empty, or its stripes do not end together.
    pub fn new(list: Vec<Segment>) -> Option<Self> {
        let fits = |segment: &Segment| {
            let row = segment.stripe_size.checked_mul(segment.count())?;
            (row > 0 && segment.len > 0 && segment.len.is_multiple_of(row)).then_some(())
        };
        list.iter().try_for_each(fits)?;
        list.iter().try_fold(0u64, |sum, segment| sum.checked_add(segment.len))?;
        let mut joined: Vec<Segment> = Vec::new();
        for segment in list {
            match (joined.last_mut(), segment.stripes.as_slice()) {
                (Some(last), [start]) if last.stripes.len() == 1 && last.stripes[0] + last.len == *start => {
                    *last = Segment::linear(last.stripes[0], last.len + segment.len);
                }
                _ => joined.push(segment),
            }
        }
        Some(Segments { list: joined })
    }

    pub fn linear(start: u64, len: u64) -> Self {
        Segments { list: if len == 0 { Vec::new() } else { vec![Segment::linear(start, len)] } }
    }

    /// Bytes of the device.
    pub fn size(&self) -> u64 {
        self.list.iter().map(|segment| segment.len).sum()
    }

    /// The place of all its bytes, if they lie one behind the other.
    pub fn one_range(&self) -> Option<Range<u64>> {
        match self.list.as_slice() {
            [Segment { len, stripes, .. }] if stripes.len() == 1 => Some(stripes[0]..stripes[0] + len),
            _ => None,
        }
    }

    /// The same on something that begins `by` bytes later.
    pub fn moved(&self, by: u64) -> Self {
        let moved = |segment: &Segment| Segment {
            stripes: segment.stripes.iter().map(|start| start + by).collect(),
            ..*segment
        };
        Segments { list: self.list.iter().map(moved).collect() }
    }

    /// Where byte `at` of the device is, and how many bytes lie one behind the other from there on; `None`
    /// beyond its end.
    pub fn place(&self, at: u64) -> Option<(u64, u64)> {
        let mut inside = at;
        for segment in &self.list {
            if inside >= segment.len {
                inside -= segment.len;
                continue;
            }
            let stripe = inside / segment.stripe_size % segment.count();
            let start = segment.stripes.get(usize::try_from(stripe).ok()?)?;
            let place = start + segment.before(stripe, inside);
            return Some((place, segment.stripe_size - inside % segment.stripe_size));
        }
        None
    }

    /// The places of a range of the device, in no order. At most one for each stripe of each segment.
    pub fn places(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let (mut found, mut begin) = (Vec::new(), 0);
        for segment in &self.list {
            let inside = |at: u64| at.saturating_sub(begin).min(segment.len);
            let (from, to) = (inside(range.start), inside(range.end));
            for (number, start) in (0..).zip(&segment.stripes) {
                found.push(start + segment.before(number, from)..start + segment.before(number, to));
            }
            begin += segment.len;
        }
        found.retain(|range| range.start < range.end);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two linear segments, then three stripes of 4 bytes in two rows.
    fn sample() -> Segments {
        let striped = Segment { len: 24, stripe_size: 4, stripes: vec![200, 100, 300] };
        Segments::new(vec![Segment::linear(50, 10), Segment::linear(20, 6), striped]).expect("segments")
    }

    #[test]
    fn each_byte_of_a_device_has_one_place_and_ranges_have_the_same_places_as_their_bytes() {
        let device = sample();
        assert_eq!(device.size(), 40);
        assert_eq!(device.place(0), Some((50, 10)));
        assert_eq!(device.place(12), Some((22, 4)));
        assert_eq!(device.place(17), Some((201, 3)));
        assert_eq!(device.place(20), Some((100, 4)));
        assert_eq!(device.place(28), Some((204, 4)));
        assert_eq!(device.place(40), None);
        let all: Vec<u64> = (0..40).filter_map(|at| device.place(at)).map(|(place, _)| place).collect();
        let distinct: std::collections::BTreeSet<&u64> = all.iter().collect();
        assert_eq!(distinct.len(), 40);
        for from in 0..=40usize {
            for to in from..=42 {
                let mut wanted = all[from..to.min(40)].to_vec();
                let range = from as u64..to as u64;
                let mut found: Vec<u64> = device.places(&range).into_iter().flatten().collect();
                wanted.sort_unstable();
                found.sort_unstable();
                assert_eq!(found, wanted, "{range:?}");
            }
        }
    }

    #[test]
    fn neighbours_are_joined_and_uneven_stripes_are_refused() {
        let joined = Segments::new(vec![Segment::linear(50, 10), Segment::linear(60, 6)]).expect("segments");
        assert_eq!((joined.one_range(), joined.moved(5).one_range()), (Some(50..66), Some(55..71)));
        assert_eq!(Segments::linear(7, 3).one_range(), Some(7..10));
        assert_eq!(sample().one_range(), None);
        for (len, stripe_size, stripes) in [(0, 4, 1), (12, 0, 1), (12, 4, 0), (12, 4, 2), (12, u64::MAX, 2)]
        {
            let stripes = vec![0; stripes];
            assert_eq!(Segments::new(vec![Segment { len, stripe_size, stripes }]), None);
        }
        assert_eq!(Segments::new(vec![Segment::linear(0, u64::MAX), Segment::linear(0, 1)]), None);
    }
}
