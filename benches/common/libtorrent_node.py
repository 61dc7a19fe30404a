"""A libtorrent node: libtorrent_node.py seed|super|leech ADDRESS:PORT TORRENT FOLDER DONE

Makes the file DONE when it has everything and goes on serving. Ends when its standard input is closed.
"""

import select
import sys

import libtorrent

role, listen, torrent, folder, done = sys.argv[1:]
settings = libtorrent.high_performance_seed()
settings.update({
    "listen_interfaces": listen,
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    "allow_multiple_connections_per_ip": True,
    "min_announce_interval": 2,
    "in_enc_policy": 2,
    "out_enc_policy": 2,
    "unchoke_slots_limit": -1,
    "alert_mask": libtorrent.alert.category_t.status_notification,
})
session = libtorrent.session(settings)
wanted = libtorrent.add_torrent_params()
wanted.ti = libtorrent.torrent_info(torrent)
wanted.save_path = folder
wanted.flags = libtorrent.torrent_flags.default_flags & ~libtorrent.torrent_flags.paused
wanted.flags &= ~libtorrent.torrent_flags.auto_managed
if role != "leech":
    wanted.flags |= libtorrent.torrent_flags.seed_mode
if role == "super":
    wanted.flags |= libtorrent.torrent_flags.super_seeding
handle = session.add_torrent(wanted)
said = role != "leech"
while not select.select([sys.stdin], [], [], 0)[0]:
    session.wait_for_alert(20)
    session.pop_alerts()
    if not said and handle.status().is_seeding:
        open(done, "w").close()
        said = True
