# shellcheck shell=bash
# Sourced from /etc/profile.d and from the top of /root/.bashrc, which bash reads for `ssh host
# command` too. pam_imagegen.so has given every session the container's environment; this mends
# what comes after it: /etc/profile overwrites PATH, and a platform's own sshd may run without PAM.
#
# The bytes come from process 1. They are NUL-separated NAME=value and only ever data, so no value
# can run anything or be cut.

[ -n "${BASH_VERSION-}" ] || { # /etc/profile is read by every sh
    PATH=/opt/venv/bin:/usr/local/cuda/bin:$PATH
    return 0
}

_imagegen_environment() {
    local _imagegen_pair _imagegen_name
    # Another root: the machine's own process 1, in a container that shares its processes.
    [[ /proc/1/root -ef / && -r /proc/1/environ ]] || return 0
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
    done </proc/1/environ
}

# Once a session: a shell inside it keeps what the user has changed since.
if [[ -z ${IMAGEGEN_ENVIRONMENT-} ]]; then
    _imagegen_environment all
    export IMAGEGEN_ENVIRONMENT=loaded
elif [[ ${BASH_SOURCE[0]} == /etc/profile.d/* ]]; then
    _imagegen_environment path
fi
unset -f _imagegen_environment
