#!/bin/sh
# PostgreSQL with PostGIS, nginx, gdaldem, and SLURM with munge, where they are missing. The other servers come with the extra `services`.
set -eu

missing=
PATH=$PATH:/usr/sbin
command -v nginx >/dev/null || missing="nginx"
# Slopes and aspects are held against GDAL's own program.
command -v gdaldem >/dev/null || missing="$missing gdal-bin"

if ! { command -v slurmctld && command -v slurmd && command -v sbatch && command -v munged; } >/dev/null; then
    missing="$missing slurmctld slurmd slurm-client munge"
fi

postgis=
for config in /usr/lib/postgresql/*/bin/pg_config "$(command -v pg_config || true)"; do
    if [ -x "$config" ] && [ -f "$("$config" --sharedir)/extension/postgis.control" ]; then
        postgis=yes
    fi
done
[ -n "$postgis" ] || missing="$missing postgresql postgresql-postgis"

[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "install these first, by the names that your system gives them:" $missing >&2
    exit 1
fi
echo "installing" $missing
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends $missing >/dev/null
