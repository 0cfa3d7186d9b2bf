# apt in folders of its own, to be sourced: packages of any Debian, their signatures checked, and the machine's lists and
# packages as they were.
#
#   debian_init FOLDER LINE     LINE is one of sources.list without its options: deb http://... trixie main
#   debian ARGUMENTS            apt-get there; what is only downloaded is in FOLDER/cache/archives
# Dependencies are resolved as on a machine that has nothing yet.
debian_keyring=/usr/share/keyrings/debian-archive-keyring.gpg

debian_init() {
    debian_folder=$1
    command -v apt-get >/dev/null || { echo "apt-get is missing, and the packages are Debian's" >&2; return 1; }
    [ -e $debian_keyring ] || { apt-get update && apt-get install -y debian-archive-keyring; } >&2
    mkdir -p "$debian_folder"/{lists,cache/archives/partial}
    : >"$debian_folder/status"
    echo "${2/ / [signed-by=$debian_keyring] }" >"$debian_folder/sources.list"
}

debian() {
    apt-get -o Dir::Etc::sourcelist="$debian_folder/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::State::lists="$debian_folder/lists" -o Dir::State::status="$debian_folder/status" \
        -o Dir::Cache="$debian_folder/cache" -o APT::Sandbox::User=root "$@"
}
