use qemu_tests::{child::*, golden::*, machine::*, net::*};
use std::{fs, path::*, time::*};
fn main() -> anyhow::Result<()> {
    let f = Path::new("/tmp/q/lab");
    let _ = fs::remove_dir_all(f);
    fs::create_dir_all(f)?;
    let k = Kernel::unpacked(Path::new("/tmp/q/k"))?;
    let t = Instant::now();
    make(&f.join("g.img"), &k, "new")?;
    println!("golden {:?}", t.elapsed());
    let n = Network::new()?;
    let _d = n.serve_dhcp(Path::new("/tmp/q/out-virtio-1"), &Dhcp::default(), &f.join("dns.log"))?;
    let _s = Guarded::spawn(Some(n.namespace()), "python3", ["/tmp/q/srv.py"], &f.join("srv.log"))?;
    let mode = std::env::args().nth(1).unwrap();
    let mut ms = vec![];
    let _x = if std::env::args().nth(2).is_some() { 1 } else { 0 };
    for (i, (fw, b)) in
        [(Firmware::Bios, Bus::Virtio), (Firmware::Uefi, Bus::Nvme), (Firmware::Bios, Bus::Ahci)]
            .into_iter()
            .enumerate()
            .filter(|(i, _)| _x == 0 || *i == 1)
    {
        let t = Terminal::new(f, i as u8, fw, b, 160 << 20)?;
        if mode != "pxe" {
            fs::copy(f.join("g.img"), t.disk())?;
        }
        ms.push(t.switch_on(&n, &if mode == "disk" { Start::Disk } else { Start::Network })?);
    }
    let t = Instant::now();
    for m in &mut ms {
        let r =
            m.wait_for(if mode == "pxe" { "HELLO" } else { "GOLDEN new is up" }, Duration::from_secs(120));
        println!("{} {:?} {:?}", m.terminal.name, t.elapsed(), r.is_ok());
        if let Err(e) = r {
            println!("{e:#}");
        }
        m.screenshot(&f.join(format!("{}.png", m.terminal.name)))?;
    }
    Ok(())
}
