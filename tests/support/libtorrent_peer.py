"""A libtorrent peer on the loopback interface: libtorrent_peer.py seed|leech TORRENT FOLDER

A leecher ends with 0 when it has everything; a seeder stays. Both end when their standard input is closed,
so that nothing outlives the test that started it.
"""

import os
import select
import sys

import libtorrent

role, torrent, folder = sys.argv[1:]
session = libtorrent.session({
    "listen_interfaces": "127.0.0.1:0",
    "outgoing_interfaces": "127.0.0.1",
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    "allow_multiple_connections_per_ip": True,
    "min_announce_interval": 2,
    "alert_mask": libtorrent.alert.category_t.status_notification | libtorrent.alert.category_t.error_notification,
})
wanted = libtorrent.add_torrent_params()
wanted.ti = libtorrent.torrent_info(torrent)
wanted.save_path = folder
wanted.flags = libtorrent.torrent_flags.default_flags & ~libtorrent.torrent_flags.paused
wanted.flags &= ~libtorrent.torrent_flags.auto_managed
handle = session.add_torrent(wanted)
while True:
    session.wait_for_alert(200)
    for alert in session.pop_alerts():
        if isinstance(alert, (libtorrent.torrent_error_alert, libtorrent.file_error_alert)):
            sys.exit(alert.message())
    if role == "leech" and handle.status().is_seeding:
        handle.flush_cache()
        sys.exit(0)
    if select.select([0], [], [], 0)[0] and not os.read(0, 1):
        sys.exit("the test has ended")
