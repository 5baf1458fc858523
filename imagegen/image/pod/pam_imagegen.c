/* A PAM module: gives root's sessions (SSH with any shell, sftp, cron, su) the container's
 * environment, of which sshd and cron pass nothing on.
 *
 * Read from process 1 as NUL-separated NAME=value and handed on as data: any value survives, line
 * ends included, which no file of pam_env can hold, and no secret is written anywhere.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Declared here and not included: the interface is fixed, and its headers are one package more. */
typedef struct pam_handle pam_handle_t;
enum { PAM_SUCCESS = 0, PAM_USER = 2 };
int pam_get_item(const pam_handle_t *, int, const void **);
int pam_putenv(pam_handle_t *, const char *);

/* The session's own. */
static const char *const OWN[] = {
    "HOME", "USER", "LOGNAME", "SHELL", "TERM", "MAIL", "PWD", "OLDPWD", "SHLVL", "_",
    "SSH_CLIENT", "SSH_CONNECTION", "SSH_TTY", "SSH_AUTH_SOCK", "SSH_ORIGINAL_COMMAND",
};

static int is_own(const char *pair) {
    size_t length = strcspn(pair, "=");
    for (size_t i = 0; i < sizeof OWN / sizeof *OWN; i++)
        if (strlen(OWN[i]) == length && !strncmp(OWN[i], pair, length)) return 1;
    return length == 0 || !pair[length];
}

int pam_sm_open_session(pam_handle_t *pamh, int flags, int argc, const char **argv) {
    (void)flags, (void)argc, (void)argv;
    const void *user = NULL;
    struct stat ours, its;
    if (pam_get_item(pamh, PAM_USER, &user) || !user || strcmp(user, "root")) return PAM_SUCCESS;
    /* Another root: the machine's own process 1, in a container that shares its processes. */
    if (stat("/", &ours) || stat("/proc/1/root/", &its)) return PAM_SUCCESS;
    if (ours.st_dev != its.st_dev || ours.st_ino != its.st_ino) return PAM_SUCCESS;
    FILE *file = fopen("/proc/1/environ", "re");
    if (!file) return PAM_SUCCESS;
    char *pair = NULL;
    size_t size = 0;
    while (getdelim(&pair, &size, '\0', file) > 0)
        if (!is_own(pair)) pam_putenv(pamh, pair);
    free(pair);
    fclose(file);
    pam_putenv(pamh, "IMAGEGEN_ENVIRONMENT=loaded"); /* environment.sh has nothing left to do */
    return PAM_SUCCESS;
}

int pam_sm_close_session(pam_handle_t *pamh, int flags, int argc, const char **argv) {
    (void)pamh, (void)flags, (void)argc, (void)argv;
    return PAM_SUCCESS;
}
