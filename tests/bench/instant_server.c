/* A FastAGI server that does nothing but the three commands of a recorded call, each at once: the ceiling of
   whoever measures servers. instant_server PORT FOLDER; it says "ready", and runs until it is killed. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONNECTIONS = 1024, INPUT = 4096, EVENTS = 64 };

static struct session {
    int step;
    size_t received;
    char uniqueid[64], input[INPUT];
} session[CONNECTIONS]; /* by descriptor */

static const char *folder;

static void say(int descriptor, const char *text) {
    if (send(descriptor, text, strlen(text), MSG_NOSIGNAL) < 0)
        perror("send"); /* the next event tells of its end */
}

static void ask(int descriptor, struct session *of) {
    char command[512];
    switch (of->step++) {
    case 0:
        say(descriptor, "GET VARIABLE apiKey\n");
        break;
    case 1:
        snprintf(command, sizeof command, "EXEC MixMonitor \"%s/%s.wav\"\n", folder, of->uniqueid);
        say(descriptor, command);
        break;
    case 2:
        say(descriptor, "SET VARIABLE RECORDING_STATUS 200\n");
        break;
    default:
        close(descriptor);
    }
}

/* A whole environment, or the reply to the one command that is under way. */
static void serve(int descriptor) {
    struct session *of = &session[descriptor];
    ssize_t count = recv(descriptor, of->input + of->received, INPUT - 1 - of->received, 0);
    if (count <= 0) {
        close(descriptor);
        return;
    }
    of->received += count;
    of->input[of->received] = '\0';
    if (!strstr(of->input, of->step ? "\n" : "\n\n"))
        return;
    char *found = of->step ? NULL : strstr(of->input, "agi_uniqueid: ");
    if (found)
        sscanf(found, "agi_uniqueid: %63s", of->uniqueid);
    of->received = 0;
    ask(descriptor, of);
}

int main(int count, char **argument) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event event[EVENTS];
    int yes = 1, poll_set = epoll_create1(0), listener = socket(AF_INET, SOCK_STREAM, 0);
    if (count != 3)
        return 2;
    address.sin_port = htons(atoi(argument[1]));
    folder = argument[2];
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    struct epoll_event of_listener = {.events = EPOLLIN, .data.fd = listener};
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, CONNECTIONS) ||
        epoll_ctl(poll_set, EPOLL_CTL_ADD, listener, &of_listener)) {
        perror(argument[1]);
        return 1;
    }
    puts("ready");
    fflush(stdout);
    for (;;) {
        int ready = epoll_wait(poll_set, event, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            if (event[i].data.fd != listener) {
                serve(event[i].data.fd);
                continue;
            }
            int descriptor = accept(listener, NULL, NULL);
            if (descriptor < 0 || descriptor >= CONNECTIONS) {
                fprintf(stderr, "too many connections\n");
                return 1;
            }
            setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
            session[descriptor].step = 0;
            session[descriptor].received = 0;
            struct epoll_event of_session = {.events = EPOLLIN, .data.fd = descriptor};
            epoll_ctl(poll_set, EPOLL_CTL_ADD, descriptor, &of_session);
        }
    }
}
