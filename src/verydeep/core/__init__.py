"""What every package uses: errors, settings, files, the device, processes of one job. Nothing here knows a net."""
