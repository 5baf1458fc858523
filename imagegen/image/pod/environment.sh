# shellcheck shell=bash
# Sourced by bash, from /etc/profile.d and from the top of /root/.bashrc (bash reads that for
# `ssh host command` too): gives a shell the container's environment, of which sshd passes nothing.
#
# The bytes come from the start script, or from process 1 where a platform ran its own instead.
# They are NUL-separated NAME=value and only ever data, so no value can run anything or be cut.

[ -n "${BASH_VERSION-}" ] || return 0 # /etc/profile is read by every sh

_imagegen_environment() {
    local _imagegen_file=/run/imagegen/environ _imagegen_pair _imagegen_name
    [[ -r $_imagegen_file ]] || _imagegen_file=/proc/1/environ
    [[ -r $_imagegen_file ]] || return 0
    while IFS= read -r -d '' _imagegen_pair; do
        _imagegen_name=${_imagegen_pair%%=*}
        [[ $_imagegen_name =~ ^[a-zA-Z_][a-zA-Z0-9_]*$ ]] || continue
        case $_imagegen_name in
        PATH) [[ $1 == all || $1 == path ]] || continue ;; # /etc/profile has just overwritten it
        # The session's own, and what bash keeps for itself.
        HOME | USER | LOGNAME | SHELL | TERM | MAIL | PWD | OLDPWD | SHLVL | _ | IFS) continue ;;
        SSH_CLIENT | SSH_CONNECTION | SSH_TTY | SSH_AUTH_SOCK | SSH_ORIGINAL_COMMAND) continue ;;
        # Outside SSH a shell inherits its variables; what was changed on the way there stands.
        *) [[ $1 == all && (-n ${SSH_CONNECTION-} || ! -v $_imagegen_name) ]] || continue ;;
        esac
        export "${_imagegen_pair?}" 2>/dev/null # bash refuses its read-only names, UID for one
    done <"$_imagegen_file"
}

# Once a session: a shell inside it keeps what the user has changed since.
if [[ -z ${IMAGEGEN_ENVIRONMENT-} ]]; then
    _imagegen_environment all
    export IMAGEGEN_ENVIRONMENT=loaded
elif [[ ${BASH_SOURCE[0]} == /etc/profile.d/* ]]; then
    _imagegen_environment path
fi
unset -f _imagegen_environment
