@echo off
rem Windows runs this once, as SYSTEM, at the end of its first start after sysprep.
powershell.exe -NoProfile -ExecutionPolicy Bypass -File "%WINDIR%\Setup\Scripts\flashmob-first-start.ps1" -Register
schtasks.exe /Run /TN "flashmob first start"
