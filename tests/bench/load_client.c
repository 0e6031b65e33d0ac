/* Plays Asterisk towards a FastAGI server: so many calls at once, the next when one is over.

   load_client PORT KEY DAY FIRST CALLS CONNECTIONS SILENT_MILLISECONDS

   The same as callers.py for less of the processor, little more than the kernel's part: it shares the machine
   with the server that it measures. Asterisk's replies are those of call.py, and test_load.py has both do the
   same.
   It prints JSON: milliseconds of each call that went well, from connecting to the server's close; how many
   failed, in the order of `failure`; the seconds of it all, and what this process has used of the processor. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { WORDS = 8, VARIABLES = 64, NAME = 64, VALUE = 512, LINE = 16384, EVENTS = 64 };
enum failure { NO_FAILURE = -1, KEY_NOT_ASKED, NOT_RECORDED, NOT_TOLD, BROKEN, SILENT, FAILURES };

struct variable {
    char name[NAME], value[VALUE];
};

struct call {
    int socket, file;
    unsigned number;
    double begun;
    bool is_open, is_unsent, key_asked, recorded;
    int variables;
    size_t received, said;
    struct variable variable[VARIABLES];
    char environment[1024], input[LINE], output[LINE];
};

static const unsigned char EMPTY_WAV[44] =
    "RIFF$\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0data";

/* res_agi.c launch_netscript(), then setup_env(). */
static const char ENVIRONMENT[] =
    "agi_network: yes\nagi_network_script: start_record\nagi_request: agi://127.0.0.1/start_record\n"
    "agi_channel: PJSIP/410-%08x\nagi_language: en\nagi_type: PJSIP\nagi_uniqueid: %s\nagi_version: 22.5.2\n"
    "agi_callerid: 0301234567\nagi_calleridname: unknown\nagi_callingpres: 0\nagi_callingani2: 0\n"
    "agi_callington: 0\nagi_callingtns: 0\nagi_dnid: 5550100\nagi_rdnis: unknown\nagi_context: inbound\n"
    "agi_extension: 5550100\nagi_priority: 2\nagi_enhanced: 0.0\nagi_accountcode: \n"
    "agi_threadid: 140042218362560\nagi_arg_1: 410\nagi_arg_2: INV-22\nagi_arg_3: Fred\n\n";

static struct sockaddr_in server = {.sin_family = AF_INET};
static const char *key;
static long day;
static unsigned next_number;
static int poll_set;
static double *milliseconds;
static long gone_well, failed[FAILURES];

static double seconds(clockid_t of) {
    struct timespec now;
    clock_gettime(of, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static const char *get(const struct call *call, const char *name) {
    for (int i = 0; i < call->variables; i++)
        if (!strcmp(call->variable[i].name, name))
            return call->variable[i].value;
    return NULL;
}

static void set(struct call *call, const char *name, const char *value) {
    int i = 0;
    while (i < call->variables && strcmp(call->variable[i].name, name))
        i++;
    if (i == VARIABLES || strlen(name) >= NAME || strlen(value) >= VALUE) {
        fprintf(stderr, "too many or too long variables: %s\n", name);
        exit(1);
    }
    if (i == call->variables)
        strcpy(call->variable[call->variables++].name, name);
    strcpy(call->variable[i].value, value);
}

static void watch(struct call *call, int how) {
    struct epoll_event event = {.events = call->is_unsent ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = call};
    if (epoll_ctl(poll_set, how, call->socket, &event))
        fail("epoll_ctl");
}

static void begin(struct call *call) {
    char uniqueid[64];
    call->number = next_number++;
    call->begun = seconds(CLOCK_MONOTONIC);
    call->is_open = true;
    call->key_asked = call->recorded = false;
    call->variables = 0;
    call->received = 0;
    call->file = -1;
    snprintf(uniqueid, sizeof uniqueid, "%ld.%u", day, call->number);
    set(call, "apiKey", key);
    set(call, "CHANNEL(linkedid)", uniqueid);
    int length = snprintf(call->environment, sizeof call->environment, ENVIRONMENT, call->number, uniqueid);
    call->socket = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (call->socket < 0)
        fail("socket");
    /* Not waited for: with a full queue the kernel would let all calls wait for this one. What fails here,
       or is not connected yet, is told by the next event. */
    connect(call->socket, (struct sockaddr *)&server, sizeof server);
    call->is_unsent = send(call->socket, call->environment, length, MSG_NOSIGNAL) != length;
    watch(call, EPOLL_CTL_ADD);
}

static enum failure outcome(const struct call *call) {
    if (!call->key_asked)
        return KEY_NOT_ASKED;
    if (!call->recorded)
        return NOT_RECORDED;
    const char *status = get(call, "RECORDING_STATUS");
    return status && !strcmp(status, "200") ? NO_FAILURE : NOT_TOLD;
}

static void end(struct call *call, enum failure failure) {
    close(call->socket);
    if (call->file >= 0)
        close(call->file); /* MixMonitor's ends with the call */
    call->is_open = false;
    if (failure == NO_FAILURE)
        milliseconds[gone_well++] = (seconds(CLOCK_MONOTONIC) - call->begun) * 1000;
    else
        failed[failure]++;
}

/* By res_agi.c parse_args(), in place. */
static int split(char *line, char **word) {
    int count = 0;
    char *to = line;
    while (count < WORDS) {
        line += strspn(line, " ");
        if (!*line)
            break;
        word[count++] = to;
        for (bool quoted = false; *line && (quoted || *line != ' '); line++) {
            if (*line == '"') {
                quoted = !quoted;
                continue;
            }
            if (*line == '\\' && line[1])
                line++;
            *to++ = *line;
        }
        if (*line)
            line++;
        *to++ = '\0'; /* never beyond what was read: a word or its end lies there */
    }
    return count;
}

/* Unlike Asterisk's, the file is there before the reply. No file, when its folder is not there: as Asterisk
   does it, the reply is the same. */
static void record(struct call *call, char *arguments) {
    char id[32], *rest = arguments, *file = strsep(&rest, ","), *options = strsep(&rest, ",");
    call->recorded = true;
    set(call, "MIXMONITOR_FILENAME", file);
    char *variable = options ? strstr(options, "i(") : NULL;
    if (variable) {
        snprintf(id, sizeof id, "0x7f35%08x", call->number);
        variable += 2;
        set(call, strsep(&variable, ")"), id);
    }
    if (call->file >= 0)
        close(call->file);
    call->file = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (call->file < 0 ? errno != ENOENT : write(call->file, EMPTY_WAV, sizeof EMPTY_WAV) != sizeof EMPTY_WAV)
        fail(file);
}

static void say(struct call *call, const char *what) {
    size_t length = strlen(what);
    if (call->said + length >= sizeof call->output) {
        fprintf(stderr, "a reply that is too long\n");
        exit(1);
    }
    memcpy(call->output + call->said, what, length + 1);
    call->said += length;
}

static void tell_variable(struct call *call, const char *name) {
    const char *value = get(call, name);
    call->key_asked |= !strcmp(name, "apiKey");
    if (!value) {
        say(call, "200 result=0\n");
        return;
    }
    say(call, "200 result=1 (");
    say(call, value);
    say(call, ")\n");
}

static void tell_expression(struct call *call, char *expression) {
    say(call, "200 result=1 (");
    for (char *name; (name = strstr(expression, "${")); ) {
        char *close = strchr(name, '}');
        if (!close)
            break;
        *name = *close = '\0';
        name += 2;
        say(call, expression);
        const char *value = get(call, name);
        call->key_asked |= !strcmp(name, "apiKey");
        say(call, value ? value : "");
        expression = close + 1;
    }
    say(call, expression);
    say(call, ")\n");
}

static void set_pair(struct call *call, char *pair) {
    char *value = pair, *name = strsep(&value, "=");
    set(call, name, value ? value : "");
}

static void execute(struct call *call, const char *application, char *arguments) {
    if (!strcmp(application, "MixMonitor"))
        record(call, arguments);
    else if (!strcmp(application, "Set"))
        set_pair(call, arguments);
    else if (!strcmp(application, "MSet"))
        for (char *pair; (pair = strsep(&arguments, ",")); )
            set_pair(call, pair);
    else if (strcmp(application, "StopMixMonitor") && strcmp(application, "Log")) {
        say(call, "200 result=-2\n"); /* no such application */
        return;
    }
    say(call, "200 result=0\n");
}

static void reply(struct call *call, char *line) {
    char *word[WORDS];
    int words = split(line, word);
    const char *verb = words ? word[0] : "", *what = words > 1 ? word[1] : "";
    if (words == 3 && !strcmp(verb, "GET") && !strcmp(what, "VARIABLE"))
        tell_variable(call, word[2]);
    else if (words == 4 && !strcmp(verb, "GET") && !strcmp(what, "FULL") && !strcmp(word[2], "VARIABLE"))
        tell_expression(call, word[3]);
    else if (words == 4 && !strcmp(verb, "SET") && !strcmp(what, "VARIABLE")) {
        set(call, word[2], word[3]);
        say(call, "200 result=1\n");
    } else if (words == 3 && !strcmp(verb, "EXEC"))
        execute(call, what, word[2]);
    else if (!strcmp(verb, "VERBOSE") || !strcmp(verb, "NOOP") || !strcmp(verb, "ANSWER") ||
             !strcmp(verb, "HANGUP"))
        say(call, "200 result=1\n");
    else
        say(call, "510 Invalid or unknown command\n");
}

static bool answer(struct call *call) {
    char *line = call->input, *line_end;
    call->input[call->received] = '\0';
    call->said = 0;
    while ((line_end = memchr(line, '\n', call->input + call->received - line))) {
        *line_end = '\0';
        reply(call, line);
        line = line_end + 1;
    }
    call->received -= line - call->input;
    memmove(call->input, line, call->received);
    return send(call->socket, call->output, call->said, MSG_NOSIGNAL) == (ssize_t)call->said;
}

/* Do what can be done without waiting. */
static void serve(struct call *call) {
    if (call->is_unsent) {
        size_t length = strlen(call->environment);
        if (send(call->socket, call->environment, length, MSG_NOSIGNAL) != (ssize_t)length) {
            end(call, BROKEN);
            return;
        }
        call->is_unsent = false;
        watch(call, EPOLL_CTL_MOD);
        return;
    }
    ssize_t count = recv(call->socket, call->input + call->received, sizeof call->input - 1 - call->received, 0);
    if (count == 0)
        end(call, outcome(call));
    else if (count < 0)
        end(call, BROKEN);
    else {
        call->received += count;
        if (!answer(call))
            end(call, BROKEN);
    }
}

static void place(long calls, int connections, int silent_milliseconds) {
    struct call *call = calloc(connections, sizeof *call);
    struct epoll_event event[EVENTS];
    long left = calls, open = 0;
    if (!call)
        fail("calloc");
    for (int i = 0; i < connections && left; i++, left--, open++)
        begin(&call[i]);
    while (open) {
        int count = epoll_wait(poll_set, event, EVENTS, silent_milliseconds);
        if (count <= 0) {
            failed[SILENT] += open + left;
            return;
        }
        for (int i = 0; i < count; i++) {
            struct call *of_event = event[i].data.ptr;
            serve(of_event);
            if (of_event->is_open)
                continue;
            if (left) {
                left--;
                begin(of_event);
            } else
                open--;
        }
    }
}

int main(int count, char **argument) {
    if (count != 8) {
        fprintf(stderr, "usage: load_client PORT KEY DAY FIRST CALLS CONNECTIONS SILENT_MILLISECONDS\n");
        return 2;
    }
    server.sin_port = htons(atoi(argument[1]));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    key = argument[2];
    day = atol(argument[3]);
    next_number = atol(argument[4]);
    long calls = atol(argument[5]);
    milliseconds = calloc(calls + 1, sizeof *milliseconds);
    poll_set = epoll_create1(EPOLL_CLOEXEC);
    if (!milliseconds || poll_set < 0)
        fail("begin");
    double begun = seconds(CLOCK_MONOTONIC);
    place(calls, atoi(argument[6]), atoi(argument[7]));
    double spent = seconds(CLOCK_MONOTONIC) - begun;
    printf("{\"seconds\": %.6f, \"own_cpu_seconds\": %.6f, \"failures\": [", spent, seconds(CLOCK_PROCESS_CPUTIME_ID));
    for (int i = 0; i < FAILURES; i++)
        printf("%s%ld", i ? ", " : "", failed[i]);
    printf("], \"milliseconds\": [");
    for (long i = 0; i < gone_well; i++)
        printf("%s%.4f", i ? ", " : "", milliseconds[i]);
    printf("]}\n");
    return 0;
}
