-- A database of schema 15, as the programs of its time wrote it.
CREATE TABLE terminals (
    id TEXT PRIMARY KEY, macs TEXT NOT NULL, uuid TEXT, inventory TEXT NOT NULL,
    agent TEXT NOT NULL, address TEXT, heard INTEGER NOT NULL, known_disks TEXT, chosen TEXT, first INTEGER, label TEXT, room TEXT, seat TEXT,
    groups TEXT NOT NULL DEFAULT '[]', hostname TEXT, accepted INTEGER NOT NULL DEFAULT 0, own_macs TEXT) STRICT;
CREATE TABLE attempts (
    number INTEGER PRIMARY KEY, terminal TEXT NOT NULL REFERENCES terminals (id), token TEXT NOT NULL,
    job TEXT NOT NULL, image TEXT NOT NULL, version TEXT NOT NULL, started INTEGER NOT NULL,
    heard INTEGER NOT NULL, progress TEXT, ended INTEGER, outcome TEXT, tries INTEGER NOT NULL,
    dirty INTEGER NOT NULL, retried INTEGER NOT NULL, cancelled INTEGER NOT NULL, retried_as TEXT, installed TEXT, also TEXT,
    preflight INTEGER NOT NULL DEFAULT 0, personal TEXT, course TEXT) STRICT;
CREATE TABLE given_numbers (highest INTEGER NOT NULL) STRICT;
CREATE TABLE secrets (
    terminal TEXT PRIMARY KEY REFERENCES terminals (id), hash BLOB NOT NULL,
    ticket INTEGER NOT NULL, used INTEGER NOT NULL) STRICT;
CREATE TABLE ticket_key (key BLOB NOT NULL) STRICT;
CREATE TABLE people (
    name TEXT PRIMARY KEY, role TEXT NOT NULL, room TEXT, hash BLOB NOT NULL,
    created INTEGER NOT NULL) STRICT;
CREATE TABLE audit (
    number INTEGER PRIMARY KEY, at INTEGER NOT NULL, who TEXT NOT NULL, action TEXT NOT NULL,
    subject TEXT NOT NULL, detail TEXT NOT NULL) STRICT;
CREATE INDEX audit_by_time ON audit (at);
CREATE INDEX attempts_of_terminal ON attempts (terminal, number);
INSERT INTO terminals VALUES ('52:54:00:00:00:01', '52:54:00:00:00:01 52:54:00:00:00:f1', '4c4c4544-0042-3510-8052-b4c04f4d4e31', '{"machine":"Dell OptiPlex 7010","serial":"ABC","cpu":"i5, 4 cores","memory":8589934592,"firmware":"uefi","disks":[{"name":"sda","size":512110190592,"sector_size":512,"model":"SAMSUNG MZ7","serial":"S1","wwn":null,"bus":"ata","path":"pci-0000:00:17.0-ata-1","rotational":false,"removable":false,"read_only":false}],"nics":[{"name":"eno1","mac":"52:54:00:00:00:01","driver":"e1000e","link":true,"speed":1000,"address":"10.0.0.1/24","neighbour":null}]}', '0.1.0', '10.0.0.1', 1764000001000, '[{"name":"sda","size":512110190592,"sector_size":512,"model":"SAMSUNG MZ7","serial":"S1","wwn":null,"bus":"ata","path":"pci-0000:00:17.0-ata-1","rotational":false,"removable":false,"read_only":false},{"name":"sdb","size":512110190592,"sector_size":512,"model":"SAMSUNG MZ7","serial":"S2","wwn":null,"bus":"ata","path":"pci-0000:00:17.0-ata-1","rotational":false,"removable":false,"read_only":false}]', '[{"rule":"internal","disk":"sda, S1","identity":{"serial":"S1","wwn":null,"path":"pci-0000:00:17.0-ata-1","size":512110190592}}]', 1764000001000, 'lab-01', '101', '1', '["east","win"]', 'lab-01', 1, '52:54:00:00:00:01');
INSERT INTO terminals VALUES ('52:54:00:00:00:02', '52:54:00:00:00:02', NULL, '{"machine":"Dell OptiPlex 7010","serial":"ABC","cpu":"i5, 4 cores","memory":8589934592,"firmware":"uefi","disks":[{"name":"sda","size":512110190592,"sector_size":512,"model":"SAMSUNG MZ7","serial":"S1","wwn":null,"bus":"ata","path":"pci-0000:00:17.0-ata-1","rotational":false,"removable":false,"read_only":false}],"nics":[{"name":"eno1","mac":"52:54:00:00:00:02","driver":"e1000e","link":true,"speed":1000,"address":"10.0.0.1/24","neighbour":null}]}', '0.1.0', '10.0.0.2', 1764000002000, '[{"name":"sda","size":512110190592,"sector_size":512,"model":"SAMSUNG MZ7","serial":"S1","wwn":null,"bus":"ata","path":"pci-0000:00:17.0-ata-1","rotational":false,"removable":false,"read_only":false}]', '[]', 1764000002000, NULL, '101', NULL, '[]', NULL, 1, '52:54:00:00:00:02');
INSERT INTO terminals VALUES ('52:54:00:00:00:03', '52:54:00:00:00:03', NULL, '{"machine":"Dell OptiPlex 7010","serial":"ABC","cpu":"i5, 4 cores","memory":8589934592,"firmware":"uefi","disks":[{"name":"sda","size":512110190592,"sector_size":512,"model":"SAMSUNG MZ7","serial":"S1","wwn":null,"bus":"ata","path":"pci-0000:00:17.0-ata-1","rotational":false,"removable":false,"read_only":false}],"nics":[{"name":"eno1","mac":"52:54:00:00:00:03","driver":"e1000e","link":true,"speed":1000,"address":"10.0.0.1/24","neighbour":null}]}', '0.1.0', '10.0.0.3', 1764000003000, '[{"name":"sda","size":512110190592,"sector_size":512,"model":"SAMSUNG MZ7","serial":"S1","wwn":null,"bus":"ata","path":"pci-0000:00:17.0-ata-1","rotational":false,"removable":false,"read_only":false}]', '[]', 1764000003000, NULL, NULL, NULL, '[]', NULL, 0, '52:54:00:00:00:03');
INSERT INTO attempts VALUES (1, '52:54:00:00:00:01', 'token-1', 'lab', 'debian', '1', 1764000005000, 1764000009000, '{"stage":"disarm","percent":40.0,"bytes_done":4,"bytes_total":10,"rate_in":1,"rate_out":2,"bytes_out":3,"peers":5,"bytes_verified":0,"seconds_left":60}', 1764000009000, '{"result":"failed","stage":"fetch","failure":{"class":"disk","message":"writing sda failed","advice":"Replace the disk."},"disk_touched":true}', 1, 0, 1, 0, '"full"', '[]', '[]', 0, NULL, NULL);
INSERT INTO attempts VALUES (2, '52:54:00:00:00:02', 'token-2', 'lab', 'debian', '1', 1764000005000, 1764000008000, '{"stage":"fetch","percent":40.0,"bytes_done":4,"bytes_total":10,"rate_in":1,"rate_out":2,"bytes_out":3,"peers":5,"bytes_verified":0,"seconds_left":60}', NULL, NULL, 1, 0, 0, 0, NULL, '[]', '[]', 1, NULL, NULL);
INSERT INTO attempts VALUES (3, '52:54:00:00:00:01', 'token-3', 'lab', 'debian', '1', 1764000010000, 1764000070000, '{"stage":"serve","percent":40.0,"bytes_done":4,"bytes_total":10,"rate_in":1,"rate_out":2,"bytes_out":3,"peers":5,"bytes_verified":0,"seconds_left":60}', 1764000070000, '{"result":"done","seconds":60,"bytes_in":1,"bytes_out":2,"disk":"sda, S1","installed":[{"image":"debian","version":"1","disk":"sda, S1","partitions":null,"starts":{"bios":"1234abcd-01","uefi":{"partition":"1234abcd-01","path":"/EFI/debian/shimx64.efi"}}}]}', 1, 1, 0, 0, NULL, '[{"image":"debian","version":"1","disk":"sda, S1","partitions":null,"starts":{"bios":"1234abcd-01","uefi":{"partition":"1234abcd-01","path":"/EFI/debian/shimx64.efi"}}}]', '["data@2"]', 0, '{"hostname":"lab-01","images":[{"image":"debian","version":"1","disk":"internal","layout":"whole-disk","partitions":null}],"after":"reboot","done":true,"steps":["EFI/flashmob/terminal.json"],"problems":[],"finishes":0,"booted":{"at":"2025-11-24T16:03:00Z","hostname":"lab-01","system":"Debian GNU/Linux 12 (bookworm)","kernel":"6.1.0-26-amd64"}}', '[{"stage":"fetch","at":1764000012000},{"stage":"serve","at":1764000060000}]');
INSERT INTO given_numbers VALUES (0);
INSERT INTO secrets VALUES ('52:54:00:00:00:02', x'abababababababababababababababababababababababababababababababab', 1764000004000, 1);
INSERT INTO ticket_key VALUES (x'cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd');
INSERT INTO people VALUES ('anna', 'teacher', '101', x'efefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefef', 1764000001000);
INSERT INTO audit VALUES (1, 1764000002000, 'the server itself', 'token create', 'anna', 'teacher of 101');
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY, run INTEGER NOT NULL, closes INTEGER NOT NULL, over INTEGER NOT NULL,
    job TEXT NOT NULL) STRICT;
CREATE TABLE members (
    job INTEGER NOT NULL REFERENCES jobs (number), run INTEGER NOT NULL, terminal TEXT NOT NULL,
    state TEXT NOT NULL, since INTEGER NOT NULL, member TEXT NOT NULL,
    PRIMARY KEY (job, run, terminal)) STRICT;
CREATE INDEX members_of_terminal ON members (terminal);
INSERT INTO jobs VALUES (1, 1, 1764043200000, 0, '{"number":1,"created":"2025-11-24T15:59:59Z","by":"administrator","note":"","targets":["room:101"],"terms":{"images":[{"image":"debian","version":"1","disk":"internal","layout":"whole-disk","partitions":null}],"compare":"auto","after":"reboot","verify":true,"longest_stay":1800},"pace":{"attempts":3,"wave":20,"wake":true,"overrun":"finish"},"needs":600,"standing":{"every":"mon-fri 22:00","closing":"06:00","follow":false},"run":{"number":1,"opens":"2025-11-24T16:00:00Z","closes":"2025-11-25T04:00:00Z","phase":"open"},"next":"2025-11-25T21:00:00Z","cancelled":false}');
INSERT INTO members VALUES (1, 1, '52:54:00:00:00:01', 'done', 1764000070000, '{"state":"done","tries":1,"attempt":3,"since":"2025-11-24T16:01:10Z","reason":"","compare":null,"until":null,"heard":true}');
INSERT INTO members VALUES (1, 1, '52:54:00:00:00:02', 'running', 1764000005000, '{"state":"running","tries":1,"attempt":2,"since":"2025-11-24T16:00:05Z","reason":"","compare":"full","until":null,"heard":true}');
CREATE TABLE logs (
    attempt INTEGER PRIMARY KEY REFERENCES attempts (number) ON DELETE CASCADE,
    received INTEGER NOT NULL, log BLOB NOT NULL) STRICT;
INSERT INTO logs VALUES (3, 1764000070000, x'28b52ffd0458d900005b20202020312e3030303030305d2077726974696e67207364610a5064c6f2');
CREATE TABLE captures (terminal TEXT PRIMARY KEY, capture TEXT NOT NULL) STRICT;
INSERT INTO captures VALUES ('52:54:00:00:00:03', '{"number":1764000100,"image":"debian","by":"anna","disk":"internal","secrets":{"token":"token-c","code":"042137"},"offers":1,"failure":null}');
PRAGMA user_version = 15;
