/* A sample of every policy's decisions, as a program in C sees them. The expected numbers are those of the C proxy's own
 * tables. Prints each decision, and ends with 1 if one is not what it should be. */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "mtproxy.h"

static int failures;

static void expect(const char *what, long long found, long long expected)
{
    printf("%-60s %lld%s\n", what, found, found == expected ? "" : "   WRONG");
    if (found != expected) {
        fprintf(stderr, "%s: found %lld; expected %lld\n", what, found, expected);
        failures++;
    }
}

static void tcp_rpc_client(void)
{
    MtproxyNonce nonce = { { 1, 2, 3, 4 }, 1000, { 1, 2, 3, 4 }, 1030, 1 };
    expect("permissions of 0x1f", mtproxy_tcp_rpc_client_permissions(0x1f), 15);
    expect("permissions of nothing", mtproxy_tcp_rpc_client_permissions(4), -1);
    expect("a link begins with schema", mtproxy_tcp_rpc_client_start(2), 1);
    expect("a nonce thirty seconds later", mtproxy_tcp_rpc_client_check_nonce(nonce), 0);
    nonce.time = 1031;
    expect("a nonce thirty-one seconds later", mtproxy_tcp_rpc_client_check_nonce(nonce), -6);
    expect("a handshake with CRC-32C", mtproxy_tcp_rpc_client_check_handshake(true, 0x800, 0x800), 1);
    expect("a handshake for somebody else", mtproxy_tcp_rpc_client_check_handshake(false, 0, 0x800), -4);
    expect("not ready after 2999 ms", mtproxy_tcp_rpc_client_readiness(false, 2999), 0);
    expect("not ready after 3000 ms", mtproxy_tcp_rpc_client_readiness(false, 3000), -6);
    MtproxyLink link = { 10000, -1, true, false, 10000, 5000 };
    expect("a silent link is asked", mtproxy_tcp_rpc_client_liveness(link), 1);
    link.since_ping_ms = 5000;
    expect("a link that does not answer is given up", mtproxy_tcp_rpc_client_liveness(link), -1);
}

static void tcp_rpc_server(void)
{
    MtproxyPeerNonce nonce = { 3, false, true, true, true, 0 };
    uint32_t strict = mtproxy_tcp_rpc_server_permissions(false);
    expect("permissions of a server", strict, 0x806);
    expect("a peer with Diffie-Hellman", mtproxy_tcp_rpc_server_judge_nonce(nonce, strict), 3);
    nonce.schema = 1;
    expect("a peer without it", mtproxy_tcp_rpc_server_judge_nonce(nonce, strict), -7);
    expect("a handshake of 31 bytes", mtproxy_tcp_rpc_server_check_handshake(31, true, 0, true), -3);
    expect("GET is HTTP", mtproxy_tcp_rpc_server_upgrade(0x20544547, true, true), 1);
    expect("44 is a length", mtproxy_tcp_rpc_server_upgrade(44, true, true), 0);
}

static void net_events(void)
{
    double percent = -1;
    expect("read, write, special: EPOLL flags", mtproxy_net_events_to_epoll(true, true, true, false), 0x8000200fLL);
    expect("RDHUP is a reason to read", mtproxy_net_events_from_epoll(0x2000).readable, 1);
    expect("RDHUP is no failure", mtproxy_net_events_from_epoll(0x2000).failed, 0);
    expect("the same flags need no call", mtproxy_net_events_registration(true, 5, 5), 0);
    expect("other flags are a modification", mtproxy_net_events_registration(true, 5, 4), 2);
    expect("nothing due: sleep for ever", mtproxy_net_events_wait(-1), -1);
    expect("due in an hour: sleep for an hour", mtproxy_net_events_wait(3600000), 3600000);
    expect("half idle", mtproxy_net_events_idle_percent(5000, 100, 50, &percent), MTPROXY_OK);
    expect("... in percent", llround(percent), 50);
    expect("nowhere to write", mtproxy_net_events_idle_percent(1, 1, 1, NULL), MTPROXY_NULL_POINTER);
}

static void net_connections(void)
{
    double pause = -1;
    MtproxyJob job = { false, false, true, false };
    MtproxyTarget target = { 7, false, { 192, 0, 2, 1 }, { 0 }, 8888 };
    expect("a connect is noticed", mtproxy_net_connections_dispatch(0, job), 1);
    expect("there is no signal 9", mtproxy_net_connections_dispatch(9, job), MTPROXY_BAD_ARGUMENT);
    expect("at the limit clients wait", mtproxy_net_connections_accept(10, 10, true), 0);
    expect("an IPv4 target", mtproxy_net_connections_target_family(target), 4);
    expect("its slot is in the table", mtproxy_net_connections_target_slot(target) < 99961, 1);
    expect("inserting what is there", mtproxy_net_connections_target_lookup(1, true), -1);
    expect("a target that is not there is allocated", mtproxy_net_connections_target_create(-1), 1);
    expect("one that nobody names is revived", mtproxy_net_connections_target_create(0), 2);
    expect("a named target's pool is filled", mtproxy_net_connections_target_tick(true, 0), 0);
    expect("a target with connections stays", mtproxy_net_connections_target_free(0, 1, target), -1);
    expect("one without is deleted as IPv4", mtproxy_net_connections_target_free(0, 0, target), 4);
    expect("clients of a retired target have a grace", mtproxy_net_connections_retired(0, 1) > 0, 1);
    expect("connections needed with three stopped and two bad", mtproxy_net_connections_needed(4, 8, 3, 2), 8);
    expect("a pause is written", mtproxy_net_connections_pause(2, &pause), MTPROXY_OK);
    expect("... in milliseconds", llround(pause * 1000), 1500);
    expect("a ready candidate is the choice", mtproxy_net_connections_pick(false, true), 1);
}

static void memory_and_notices(void)
{
    expect("a buffer for 513 bytes", (long long)mtproxy_net_msg_buffers_size(513), 2048);
    expect("empty ones kept of it", (long long)mtproxy_net_msg_buffers_spares(513), 256);
    expect("no memory is no reason to die", mtproxy_net_msg_buffers_may_allocate(100, 1, 512), 0);
    expect("to free above three quarters", (long long)mtproxy_net_msg_buffers_to_free(1000, 1000), 250);
    expect("pressed at three quarters", mtproxy_net_msg_buffers_is_pressed(750, 1000, 75), 1);
    expect("ready: those who wait are served", mtproxy_net_thread_noticed(1), 1);
    expect("there is no event 5", mtproxy_net_thread_noticed(5), MTPROXY_BAD_ARGUMENT);
    expect("a connection that is refused fails with", mtproxy_net_thread_after_ready(-1), -8);
}

static void forwarding(void)
{
    const uint8_t encrypted[56] = { 1 };
    expect("56 bytes with a key are forwarded", mtproxy_forwarding_admit(encrypted, 56), 1);
    expect("52 bytes with a key are not", mtproxy_forwarding_admit(encrypted, 52), 0);
    expect("no packet", mtproxy_forwarding_admit(NULL, 56), MTPROXY_NULL_POINTER);
    expect("a lost link is replaced", mtproxy_forwarding_mapping(1, true), 1);
    expect("an answer for nobody is refused", mtproxy_forwarding_react(0, false), 2);
    expect("an answer beyond the limit is not queued", mtproxy_forwarding_takes_answer(400, 601, 1000), 0);
    expect("a client with a request on its way is closed", mtproxy_forwarding_on_link_lost(20000, false), -33);
    expect("a quiet one stays", mtproxy_forwarding_on_link_lost(15000, true), 0);
}

int main(void)
{
    tcp_rpc_client();
    tcp_rpc_server();
    net_events();
    net_connections();
    memory_and_notices();
    forwarding();
    return failures == 0 ? 0 : 1;
}
