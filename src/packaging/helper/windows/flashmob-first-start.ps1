# Makes a Windows its terminal's own at the first start after flashmob has imaged it. Runs as SYSTEM.
#
# The agent left EFI\flashmob\terminal.json on the EFI system partition. The ticket of that file is remembered in
# C:\ProgramData\flashmob, and each part is done once for it. Not tried on a real Windows yet.
#
# A Windows that starts by BIOS has no such partition. There the agent writes into
# C:\ProgramData\flashmob\terminal.json, a blank that "flashmob-first-start.ps1 -Blank" makes in the golden Windows
# before it is captured.
param([switch]$Register, [switch]$Blank)
$ErrorActionPreference = 'Stop'
$state = Join-Path $env:ProgramData 'flashmob'
New-Item -ItemType Directory -Force $state | Out-Null
Start-Transcript -Append (Join-Path $state 'first-start.log') | Out-Null

# A file that waits could not be copied: the next start tries again, even if all else is done.
$script:filesFailed = $false

function Test-Done($part, $ticket) {
    $file = Join-Path $state $part
    # A power cut may have left an empty one.
    (Test-Path $file) -and ("$(Get-Content $file -Raw)".Trim() -eq $ticket)
}

function Set-Done($part, $ticket) {
    Set-Content (Join-Path $state $part) $ticket
}

# How many times the computer was to be renamed for this ticket, this time included.
function Add-RenameTry($ticket) {
    $file = Join-Path $state 'rename-tries'
    $of, $count = "$(if (Test-Path $file) { Get-Content $file -Raw })".Trim() -split ' ', 2
    $count = if ($of -eq $ticket -and $count -match '^[0-9]+$') { [int]$count + 1 } else { 1 }
    Set-Content $file "$ticket $count"
    $count
}

# Copies the administrator's files that wait on the EFI system partition to the drive of this Windows. Each is copied
# once for the ticket. One that cannot be copied is tried again at the next start, and does not stop the others. Those
# whose name begins with "linux-" are left to the helper in a Linux on the same disk.
function Copy-WaitingFiles($folder, $ticket) {
    $list = Join-Path $folder 'files.txt'
    if (-not (Test-Path $list)) { return }
    $lines = @(Get-Content $list -Encoding UTF8)
    $mine = @($lines | Where-Object { $_ -notlike 'linux-*' })
    $rest = @($lines | Where-Object { $_ -like 'linux-*' })
    if (-not $mine) { return }
    $copied = @()
    foreach ($line in $mine) {
        $name, $sum, $mode, $path = $line -split ' ', 4
        if (Test-Done "file-$name" $ticket) { continue }
        try {
            $from = Join-Path $folder $name
            if ((Get-FileHash $from -Algorithm SHA256).Hash -ne $sum) { throw 'it is damaged' }
            Copy-WaitingFile $from $mode "$env:SystemDrive\$($path -replace '/', '\')"
            $copied += $name
        }
        catch {
            $script:filesFailed = $true
            Write-Output "the file for $path is left out: $_" | Out-Host
        }
    }
    # The copies on the EFI system partition are the only ones until the others are on the medium.
    Write-VolumeCache -DriveLetter $env:SystemDrive.Substring(0, 1)
    foreach ($name in $copied) { Set-Done "file-$name" $ticket }
    if ($script:filesFailed) { return }
    # They may be secrets.
    if (-not $rest) {
        Remove-Item -Recurse -Force $folder
        return
    }
    foreach ($line in $mine) {
        Remove-Item -Force -ErrorAction SilentlyContinue (Join-Path $folder ($line -split ' ', 2)[0])
    }
    # Linux reads lines that end with a line feed alone.
    $new = Join-Path $folder 'rest.txt'
    [IO.File]::WriteAllText($new, (($rest -join "`n") + "`n"))
    Move-Item -Force $new $list
}

# Copies one file. Where its mode gives nothing to groups and others, only administrators and the system may read it.
function Copy-WaitingFile($from, $mode, $to) {
    if ([IO.Directory]::Exists($to)) { throw "$to is a folder" }
    [IO.Directory]::CreateDirectory([IO.Path]::GetDirectoryName($to)) | Out-Null
    $new = "$to.flashmob-new"
    try {
        # Nobody reads a secret while it is written.
        [IO.File]::WriteAllBytes($new, [byte[]]@())
        if (([Convert]::ToInt32($mode, 8) -band 63) -eq 0) {
            # SYSTEM and Administrators, whose names differ between languages.
            & icacls.exe $new /inheritance:r /grant:r '*S-1-5-18:F' '*S-1-5-32-544:F' | Out-Null
            if ($LASTEXITCODE -ne 0) { throw "the permissions of $new cannot be set" }
        }
        [IO.File]::WriteAllBytes($new, [IO.File]::ReadAllBytes($from))
        if ([IO.File]::Exists($to)) { Remove-Item -LiteralPath $to -Force }
        [IO.File]::Move($new, $to)
    }
    finally {
        if ([IO.File]::Exists($new)) { Remove-Item -LiteralPath $new -Force }
    }
    Write-Output "$to is written" | Out-Host
}

# The EFI system partition of the disk that carries this Windows. Whoever writes the file there rules this computer, so
# no other disk is looked at, whatever is plugged in.
function Get-OwnEsp {
    $windows = Get-Partition -DriveLetter $env:SystemDrive.Substring(0, 1)
    Get-Partition -DiskNumber $windows.DiskNumber |
        Where-Object { $_.GptType -eq '{c12a7328-f81f-11d2-ba4b-00a0c93ec93b}' } | Select-Object -First 1
}

# Makes the blank: a line that has no ticket, and spaces, in clusters of its own. The agent writes over its beginning.
function New-Blank {
    if (Get-OwnEsp) { throw 'this Windows starts by UEFI and needs no blank' }
    $file = Join-Path $state 'terminal.json'
    if (Test-Path $file) { Remove-Item -Force $file }
    $line = '{"format": 1, "blank": "flashmob writes the file of each terminal here"}' + "`n"
    [IO.File]::WriteAllBytes($file, [Text.Encoding]::ASCII.GetBytes($line.PadRight(65536)))
    # SYSTEM and Administrators: the ticket is not for everybody.
    & icacls.exe $file /inheritance:r /grant:r '*S-1-5-18:F' '*S-1-5-32-544:F' | Out-Null
    if ($LASTEXITCODE -ne 0) { throw "the permissions of $file cannot be set" }
    Write-VolumeCache -DriveLetter $env:SystemDrive.Substring(0, 1)
    Write-Output "$file is ready for the capture" | Out-Host
}

# The file that the agent wrote into the blank.
function Get-BlankFile {
    $file = Join-Path $state 'terminal.json'
    if (-not (Test-Path $file)) { return $null }
    $own = (Get-Content $file -Raw -Encoding UTF8).Trim() | ConvertFrom-Json
    if (-not $own.ticket) { return $null }
    return $own
}

# The file of that partition, after the files that wait beside it were copied.
function Get-OwnFile {
    $esp = Get-OwnEsp
    if (-not $esp) { return Get-BlankFile }
    $letter = 'S', 'T', 'U', 'V' | Where-Object { -not (Test-Path "${_}:\") } | Select-Object -First 1
    if (-not $letter) { throw 'no drive letter is free for the EFI system partition' }
    $esp | Add-PartitionAccessPath -AccessPath "${letter}:\" | Out-Null
    try {
        $file = "${letter}:\EFI\flashmob\terminal.json"
        if (-not (Test-Path $file)) { return $null }
        $own = Get-Content $file -Raw -Encoding UTF8 | ConvertFrom-Json
        if (-not $own.ticket) { return $null }
        try { Copy-WaitingFiles "${letter}:\EFI\flashmob\after" $own.ticket }
        catch {
            $script:filesFailed = $true
            Write-Output "$_" | Out-Host
        }
        return $own
    }
    finally {
        $esp | Remove-PartitionAccessPath -AccessPath "${letter}:\" | Out-Null
    }
}

# Lets the file system of drive C: fill its partition, which the agent has made larger on a larger disk.
function Expand-System {
    $letter = $env:SystemDrive.Substring(0, 1)
    $room = (Get-Partition -DriveLetter $letter).Size - (Get-Volume -DriveLetter $letter).Size
    if ($room -lt 1MB) { return }
    "select volume $letter`nextend filesystem" | & diskpart.exe | Out-Host
}

# Starts this script again at the next start, until it is done.
function Set-NextStart {
    $action = New-ScheduledTaskAction -Execute 'powershell.exe' `
        -Argument "-NoProfile -ExecutionPolicy Bypass -File `"$PSCommandPath`""
    Register-ScheduledTask -Force -TaskName 'flashmob first start' -User 'SYSTEM' -RunLevel Highest `
        -Action $action -Trigger (New-ScheduledTaskTrigger -AtStartup) | Out-Null
}

# Ends that, unless files still wait.
function Remove-NextStart {
    if ($script:filesFailed) { return }
    Unregister-ScheduledTask -TaskName 'flashmob first start' -Confirm:$false -ErrorAction SilentlyContinue
}

if ($Blank) {
    New-Blank
    Stop-Transcript | Out-Null
    exit 0
}

# Setup must not be interrupted by a restart: it only arranges the rest.
if ($Register) {
    Set-NextStart
    Stop-Transcript | Out-Null
    exit 0
}

$own = Get-OwnFile
# After a power cut the agent writes the file at a later network boot, so this script goes on being started.
if (-not $own.ticket) {
    Stop-Transcript | Out-Null
    exit 0
}
if (Test-Done 'booted' $own.ticket) {
    Remove-NextStart
    Stop-Transcript | Out-Null
    exit 0
}
Set-NextStart

# A Windows computer has the first part of a host name.
$name = ($own.hostname -split '\.')[0]
if ($name -and -not (Test-Done 'named' $own.ticket)) {
    if ($name -notin $env:COMPUTERNAME, [Net.Dns]::GetHostName()) {
        # The scripts may join a domain, so they do not run under the golden machine's name.
        if ((Add-RenameTry $own.ticket) -gt 3) {
            Write-Output "after 3 tries the computer is still not $($name): rename it, then the scripts run at its start"
            Stop-Transcript | Out-Null
            exit 1
        }
        try { Rename-Computer -NewName $name -Force }
        catch {
            Write-Output "the computer cannot be renamed to $($name); its next start tries again: $_"
            Stop-Transcript | Out-Null
            exit 1
        }
        Write-Output "the computer is $name from its next start on"
        Stop-Transcript | Out-Null
        Restart-Computer -Force
        exit 0
    }
    Set-Done 'named' $own.ticket
}

try { Expand-System } catch { Write-Output "the file system of $env:SystemDrive did not grow: $_" }

$env:FLASHMOB_HOSTNAME = $own.hostname
$env:FLASHMOB_ROOM = $own.room
$env:FLASHMOB_SEAT = $own.seat
$env:FLASHMOB_LABEL = $own.label
$env:FLASHMOB_JOB = $own.job
$failed = $false
$scripts = Get-ChildItem (Join-Path $state 'first-start.d') -Filter *.ps1 -ErrorAction SilentlyContinue
foreach ($script in ($scripts | Sort-Object Name)) {
    if (Test-Done "script-$($script.Name)" $own.ticket) { continue }
    & powershell.exe -NoProfile -ExecutionPolicy Bypass -File $script.FullName
    if ($LASTEXITCODE -eq 0) { Set-Done "script-$($script.Name)" $own.ticket }
    else { $failed = $true; Write-Output "$($script.Name) failed; it runs again at the next start" }
}
if ($failed) { Stop-Transcript | Out-Null; exit 1 }

$windows = Get-CimInstance Win32_OperatingSystem
$body = @{
    ticket = $own.ticket; hostname = $env:COMPUTERNAME; system = $windows.Caption; kernel = $windows.Version
} | ConvertTo-Json
for ($try = 0; $try -lt 10; $try++) {
    try {
        Invoke-WebRequest -UseBasicParsing -Method Post -Uri "$($own.server)/api/v1/booted" `
            -ContentType 'application/json; charset=utf-8' -Body ([Text.Encoding]::UTF8.GetBytes($body)) | Out-Null
        Set-Done 'booted' $own.ticket
        break
    }
    catch {
        $answer = $_.Exception.Response
        # The server has heard this system before, or imaged it anew since.
        if ($answer -and [int]$answer.StatusCode -eq 403) { Set-Done 'booted' $own.ticket; break }
        Start-Sleep -Seconds 30
    }
}
if (Test-Done 'booted' $own.ticket) {
    Remove-NextStart
}
Stop-Transcript | Out-Null
