"""A libtorrent peer: libtorrent_peer.py [--fast] [--done DONE] seed|super|leech ADDRESS:PORT TORRENT FOLDER

A leecher ends with 0 when it has everything; with --done it makes the file DONE instead and goes on serving. A
seeder stays. --fast takes libtorrent's settings for a fast seeder, and a seeder then trusts its payload. The
peer ends when its standard input is closed, so that it does not outlive the process that started it.
"""

import argparse
import os
import select
import sys

import libtorrent

parser = argparse.ArgumentParser()
parser.add_argument("--fast", action="store_true")
parser.add_argument("--done")
parser.add_argument("role", choices=["seed", "super", "leech"])
parser.add_argument("listen")
parser.add_argument("torrent")
parser.add_argument("folder")
arguments = parser.parse_args()
seeds = arguments.role != "leech"

settings = libtorrent.high_performance_seed() if arguments.fast else {}
settings.update({
    "listen_interfaces": arguments.listen,
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    "allow_multiple_connections_per_ip": True,
    "min_announce_interval": 2,
})
category = libtorrent.alert.category_t
if arguments.fast:
    settings.update({"in_enc_policy": 2, "out_enc_policy": 2, "unchoke_slots_limit": -1})
    settings["alert_mask"] = category.status_notification
else:
    settings["alert_mask"] = category.status_notification | category.error_notification
    settings["outgoing_interfaces"] = arguments.listen.rsplit(":", 1)[0]
session = libtorrent.session(settings)
wanted = libtorrent.add_torrent_params()
wanted.ti = libtorrent.torrent_info(arguments.torrent)
wanted.save_path = arguments.folder
wanted.flags = libtorrent.torrent_flags.default_flags & ~libtorrent.torrent_flags.paused
wanted.flags &= ~libtorrent.torrent_flags.auto_managed
if seeds and arguments.fast:
    wanted.flags |= libtorrent.torrent_flags.seed_mode
if arguments.role == "super":
    wanted.flags |= libtorrent.torrent_flags.super_seeding
handle = session.add_torrent(wanted)
has_said = seeds
while True:
    session.wait_for_alert(20 if arguments.fast else 200)
    for alert in session.pop_alerts():
        if isinstance(alert, (libtorrent.torrent_error_alert, libtorrent.file_error_alert)):
            sys.exit(alert.message())
    if not has_said and handle.status().is_seeding:
        if not arguments.done:
            handle.flush_cache()
            sys.exit(0)
        open(arguments.done, "w").close()
        has_said = True
    if select.select([0], [], [], 0)[0] and not os.read(0, 1):
        sys.exit("the process that started this peer has ended")
