//! What must hold in a whole lab, over many seeds.

use std::time::Duration;

use super::{Lab, LabSpec};

#[test]
fn equal_terminals_all_finish_and_the_seeder_sends_little_twice() {
    for seed in 0..5 {
        let mut lab = Lab::new(LabSpec::new(8, 64, 256 * 1024, seed));
        assert!(lab.run(Duration::from_secs(60)), "seed {seed}");
        println!("seed {seed} ratio {:.3} seeder {:.3}", lab.ratio(), lab.seeder_share());
    }
}
