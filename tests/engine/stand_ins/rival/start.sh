#!/bin/bash
# A start script as the widest-used images for RunPod have it, written anew from a description of
# what theirs does, with what users reported about it: keys appended at every start, values written
# between quotes as they are, Jupyter's end being the pod's, and nothing for another start command.
set -e

if [ -n "$PUBLIC_KEY" ]; then
    mkdir -p ~/.ssh
    echo "$PUBLIC_KEY" >>~/.ssh/authorized_keys
    chmod -R 700 ~/.ssh
    for kind in rsa ecdsa ed25519; do
        file=/etc/ssh/ssh_host_${kind}_key
        [ -f "$file" ] || ssh-keygen -q -t "$kind" -N '' -f "$file"
    done
    service ssh start
fi

if [ -n "$JUPYTER_PASSWORD" ]; then
    cd /
    nohup python -m jupyter lab --allow-root --no-browser --ip='*' --port=8888 \
        --IdentityProvider.token="$JUPYTER_PASSWORD" --ServerApp.allow_origin='*' \
        --ServerApp.root_dir=/ --ServerApp.preferred_dir=/workspace >/jupyter.log 2>&1 &
    sleep 2
    kill -0 $!
fi

printenv | grep -E '^[A-Z_][A-Z0-9_]*=' |
    while IFS='=' read -r name value; do
        echo "export $name=\"$value\""
    done >/etc/pod_environment
echo 'source /etc/pod_environment' >>~/.bashrc

sleep infinity
