//! The specification of a lab.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::swarm::wire::Message;
use crate::swarm::{EngineConfig, PieceShape, WholePieces};
use crate::tracker::Topology;
use crate::units::{BLOCK_LEN, PieceIndex};

/// The behaviour of a node.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Character {
    /// Nothing.
    #[default]
    Honest,
    /// Sends blocks with wrong bytes.
    Liar,
    /// Sends frames that are none, and pieces as they are.
    Garbler,
    /// Takes requests and sends no blocks.
    Stalling,
    /// Grants every offer and requests nothing.
    Taker,
    /// Sends these messages to every peer that connects, and reacts to nothing.
    Script(Vec<Message>),
}

/// One node.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    /// It has everything from the start.
    pub seeder: bool,
    /// Bytes a second, each way.
    pub rate: u64,
    /// Bytes a second that are checked and written, one piece after another.
    pub disk: u64,
    /// Speaks only what standard clients speak: no extension of ours.
    pub standard: bool,
    /// When it is switched on.
    pub arrives: Duration,
    /// When it is switched off: its connections close.
    pub leaves: Option<Duration>,
    /// When its cable is pulled: from then on nothing from it or to it arrives, and nobody is told.
    pub vanishes: Option<Duration>,
    /// Piece buffers.
    pub buffers: usize,
    /// Its behaviour.
    pub character: Character,
    /// What it wants (and a seeder has); `None`: everything.
    pub wanted: Option<Range<u32>>,
    /// Which zone it is in, counted from 1; 0: none.
    pub zone: u8,
    /// It takes frames, keeps as many of them, and makes its own. 0: it knows nothing of frames.
    pub frames: usize,
    /// Bytes a second that it may use of its link, each way.
    pub limit: Option<u64>,
}

impl NodeSpec {
    /// A terminal on a 100 Mbit/s link that is there from the start.
    pub fn terminal() -> Self {
        NodeSpec {
            seeder: false,
            rate: 12_500_000,
            disk: 500_000_000,
            standard: false,
            arrives: Duration::ZERO,
            leaves: None,
            vanishes: None,
            buffers: 64,
            character: Character::Honest,
            wanted: None,
            zone: 0,
            frames: 0,
            limit: None,
        }
    }

    /// How long its disk takes for `bytes`.
    pub fn writing(&self, bytes: u64) -> Duration {
        Duration::from_nanos(bytes * 1_000_000_000 / self.disk)
    }

    /// One that has everything.
    pub fn seeder() -> Self {
        NodeSpec { seeder: true, ..Self::terminal() }
    }
}

/// Zones behind switches, in a lab with a tracker.
#[derive(Debug, Clone)]
pub struct Zones {
    /// Bytes a second through each zone's uplink, each way.
    pub uplink: u64,
    /// The lab's shape as the tracker knows it. Terminals of zone `n` have addresses in 10.`n`.0.0/16.
    pub topology: Topology,
    /// One second of the lab is this many of its model: what the tracker does by the clock goes with it.
    pub time_scale: u32,
}

/// The whole lab.
#[derive(Clone)]
pub struct LabSpec {
    /// Nodes; the first is the server's seeder.
    pub nodes: Vec<NodeSpec>,
    /// Pieces of the payload.
    pub pieces: u32,
    /// Bytes of one, on the wire.
    pub piece_length: u32,
    /// One byte that engines hold stands for this many on the wire: see [`scaled_down`](Self::light).
    pub scale: u32,
    /// Bytes the last piece lacks to full length.
    pub short: u64,
    /// One way, between any two nodes.
    pub latency: Duration,
    /// Which ranges of pieces travel.
    pub shape: Arc<dyn PieceShape>,
    /// Changes every engine's configuration.
    pub tune: fn(&mut EngineConfig),
    /// All chance.
    pub seed: u64,
    /// The payload is zeros, all in one place in memory: for labs of many pieces. Liars need another one.
    pub blank: bool,
    /// How zones are connected, and what the tracker makes of them; `None`: everybody knows everybody.
    pub zones: Option<Zones>,
}

impl LabSpec {
    /// One seeder and `terminals` terminals.
    pub fn new(terminals: usize, pieces: u32, piece_length: u32, seed: u64) -> Self {
        let mut nodes = vec![NodeSpec::seeder()];
        nodes.resize(terminals + 1, NodeSpec::terminal());
        let latency = Duration::from_micros(200);
        LabSpec {
            nodes,
            pieces,
            piece_length,
            scale: 1,
            short: 0,
            latency,
            shape: Arc::new(WholePieces),
            tune: |_| {},
            seed,
            blank: false,
            zones: None,
        }
    }

    /// The same lab with a payload of zeros that weighs little in memory: as many blocks, each of a few bytes
    /// that stand for 16 KiB on every link. Only for flashmob peers: standard ones reckon with blocks of the
    /// usual length.
    pub fn scaled_down(mut self) -> Self {
        self.scale = BLOCK_LEN / SCALED_BLOCK;
        self.blank = true;
        self.shape = Arc::new(ScaledBlocks);
        self
    }

    /// Bytes of a piece that engines hold.
    pub(crate) fn held_length(&self) -> u32 {
        self.piece_length / self.scale
    }
}

/// Bytes of a block that stands for 16 KiB.
const SCALED_BLOCK: u32 = 64;

/// Pieces cut in blocks of a few bytes.
struct ScaledBlocks;

impl PieceShape for ScaledBlocks {
    fn data_ranges(&self, _piece: PieceIndex, len: u32) -> Vec<Range<u32>> {
        let step = SCALED_BLOCK as usize;
        (0..len).step_by(step).map(|start| start..(start + SCALED_BLOCK).min(len)).collect()
    }
}
