# Makes a Windows its terminal's own at the first start after flashmob has imaged it. Runs as SYSTEM.
#
# The agent left EFI\flashmob\terminal.json on the EFI system partition. The ticket of that file is remembered in
# C:\ProgramData\flashmob, and each part is done once for it. Not tried on a real Windows yet.
param([switch]$Register)
$ErrorActionPreference = 'Stop'
$state = Join-Path $env:ProgramData 'flashmob'
New-Item -ItemType Directory -Force $state | Out-Null
Start-Transcript -Append (Join-Path $state 'first-start.log') | Out-Null

function Test-Done($part, $ticket) {
    $file = Join-Path $state $part
    (Test-Path $file) -and ((Get-Content $file -Raw).Trim() -eq $ticket)
}

function Set-Done($part, $ticket) {
    Set-Content (Join-Path $state $part) $ticket
}

# Copies the administrator's files that wait on the EFI system partition to the drive of this Windows.
function Copy-WaitingFiles($folder) {
    $list = Join-Path $folder 'files.txt'
    if (-not (Test-Path $list)) { return }
    foreach ($line in (Get-Content $list -Encoding UTF8)) {
        $name, $sum, $mode, $path = $line -split ' ', 4
        $from = Join-Path $folder $name
        if ((Get-FileHash $from -Algorithm SHA256).Hash -ne $sum) { throw "the file for $path is damaged" }
        $to = "$env:SystemDrive\$($path -replace '/', '\')"
        New-Item -ItemType Directory -Force (Split-Path $to) | Out-Null
        Copy-Item -LiteralPath $from -Destination $to -Force
        Write-Output "$to is written" | Out-Host
    }
    # They may be secrets.
    Remove-Item -Recurse -Force $folder
}

# The file of the EFI system partition of the disk that Windows started from.
function Get-OwnFile {
    $letter = 'S', 'T', 'U', 'V' | Where-Object { -not (Test-Path "${_}:\") } | Select-Object -First 1
    if (-not $letter) { throw 'no drive letter is free for the EFI system partition' }
    & mountvol "${letter}:" /S
    if ($LASTEXITCODE -ne 0) { return $null }
    try {
        $file = "${letter}:\EFI\flashmob\terminal.json"
        if (Test-Path $file) {
            # What cannot be copied now is tried again at the next start, and does not stop the rest.
            try { Copy-WaitingFiles "${letter}:\EFI\flashmob\after" } catch { Write-Output "$_" | Out-Host }
        }
        if (Test-Path $file) { return Get-Content $file -Raw -Encoding UTF8 | ConvertFrom-Json }
    }
    finally {
        & mountvol "${letter}:" /D
    }
}

# Lets the file system of drive C: fill its partition, which the agent has made larger on a larger disk.
function Expand-System {
    $letter = $env:SystemDrive.Substring(0, 1)
    $room = (Get-Partition -DriveLetter $letter).Size - (Get-Volume -DriveLetter $letter).Size
    if ($room -lt 1MB) { return }
    "select volume $letter`nextend filesystem" | & diskpart.exe
}

# Starts this script again at the next start, until it is done.
function Set-NextStart {
    $action = New-ScheduledTaskAction -Execute 'powershell.exe' `
        -Argument "-NoProfile -ExecutionPolicy Bypass -File `"$PSCommandPath`""
    Register-ScheduledTask -Force -TaskName 'flashmob first start' -User 'SYSTEM' -RunLevel Highest `
        -Action $action -Trigger (New-ScheduledTaskTrigger -AtStartup) | Out-Null
}

# Setup must not be interrupted by a restart: it only arranges the rest.
if ($Register) {
    Set-NextStart
    Stop-Transcript | Out-Null
    exit 0
}

$own = Get-OwnFile
if (-not $own -or (Test-Done 'booted' $own.ticket)) {
    Unregister-ScheduledTask -TaskName 'flashmob first start' -Confirm:$false -ErrorAction SilentlyContinue
    Stop-Transcript | Out-Null
    exit 0
}
Set-NextStart

# A Windows computer has the first part of a host name.
$name = ($own.hostname -split '\.')[0]
if ($name -and $name -ne $env:COMPUTERNAME -and -not (Test-Done 'named' $own.ticket)) {
    Set-Done 'named' $own.ticket
    Rename-Computer -NewName $name -Force
    Write-Output "the computer is $name from its next start on"
    Stop-Transcript | Out-Null
    Restart-Computer -Force
    exit 0
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
    Unregister-ScheduledTask -TaskName 'flashmob first start' -Confirm:$false -ErrorAction SilentlyContinue
}
Stop-Transcript | Out-Null
