/* What no daemon behind NFQUEUE can avoid, and nothing else: the measure that mcencrypt is held against.
 *
 *     cc -O3 floor.c -o floor -lcrypto
 *     floor rewrite QUEUE         every packet is copied back with a new TCP checksum
 *     floor seal QUEUE RECORD     and its payload is sealed with AES-256-GCM in records of RECORD bytes, into the void:
 *                                 what encryption costs, without a protocol
 *
 * It protects nothing. Rules as the daemon's: raw OUTPUT `! -o lo`, mangle INPUT `! -i lo`. "ready" on standard output
 * says that the queue is bound. Like the daemon it runs under SCHED_RR if it may, and waits in poll(2).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <linux/netlink.h>
#include <openssl/evp.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define COPY_RANGE 65531 /* a verdict's packet is never longer: nla_len has 16 bits */

static int netlink;

struct request {
    char bytes[256];
    int length;
};

static void begin(struct request *r, int type, int queue) {
    struct nlmsghdr *header = (void *)r->bytes;
    struct nfgenmsg *family = (void *)(header + 1);
    memset(r->bytes, 0, sizeof *header + sizeof *family);
    header->nlmsg_type = NFNL_SUBSYS_QUEUE << 8 | type;
    header->nlmsg_flags = NLM_F_REQUEST;
    family->res_id = htons(queue);
    r->length = sizeof *header + sizeof *family;
}

static void put(struct request *r, int type, const void *value, int length) {
    struct nlattr *attribute = (void *)(r->bytes + r->length);
    attribute->nla_type = type;
    attribute->nla_len = sizeof *attribute + length;
    memcpy(attribute + 1, value, length);
    r->length += NLA_ALIGN(attribute->nla_len);
}

static void ask(struct request *r) {
    ((struct nlmsghdr *)r->bytes)->nlmsg_len = r->length;
    if (send(netlink, r->bytes, r->length, 0) != r->length) perror("netlink");
}

static void bind_queue(int queue) {
    struct nfqnl_msg_config_cmd command = {.command = NFQNL_CFG_CMD_BIND};
    struct nfqnl_msg_config_params whole = {.copy_range = htonl(COPY_RANGE), .copy_mode = NFQNL_COPY_PACKET};
    uint32_t gso = htonl(NFQA_CFG_F_GSO), waiting = htonl(4096);
    struct request r;
    begin(&r, NFQNL_MSG_CONFIG, queue);
    put(&r, NFQA_CFG_CMD, &command, sizeof command);
    ask(&r);
    begin(&r, NFQNL_MSG_CONFIG, queue);
    put(&r, NFQA_CFG_PARAMS, &whole, sizeof whole);
    put(&r, NFQA_CFG_FLAGS, &gso, sizeof gso);
    put(&r, NFQA_CFG_MASK, &gso, sizeof gso);
    put(&r, NFQA_CFG_QUEUE_MAXLEN, &waiting, sizeof waiting);
    ask(&r);
}

/* RFC 1071 in this machine's byte order. */
static uint64_t sum(const unsigned char *bytes, int length) {
    uint64_t total = 0;
    for (; length >= 4; bytes += 4, length -= 4) {
        uint32_t word;
        memcpy(&word, bytes, 4);
        total += word;
    }
    if (length >= 2) {
        uint16_t word;
        memcpy(&word, bytes, 2);
        total += word, bytes += 2, length -= 2;
    }
    return length ? total + *bytes : total;
}

static void write_checksum(unsigned char *packet, int length, int tcp_at) {
    uint16_t end[2] = {htons(6), htons(length - tcp_at)};
    memset(packet + tcp_at + 16, 0, 2);
    uint64_t total = packet[0] >> 4 == 4 ? sum(packet + 12, 8) : sum(packet + 8, 32);
    total += sum((void *)end, 4) + sum(packet + tcp_at, length - tcp_at);
    while (total >> 16) total = (total & 0xffff) + (total >> 16);
    uint16_t checksum = ~total;
    memcpy(packet + tcp_at + 16, &checksum, 2);
}

static void seal(EVP_CIPHER_CTX *cipher, const unsigned char *payload, int length, int record) {
    static unsigned char sealed[1 << 17], nonce[12];
    int done;
    for (int at = 0; at < length; at += record) {
        int size = length - at < record ? length - at : record;
        EVP_EncryptInit_ex(cipher, NULL, NULL, NULL, nonce);
        EVP_EncryptUpdate(cipher, NULL, &done, nonce, 6);
        EVP_EncryptUpdate(cipher, sealed, &done, payload + at, size);
        EVP_EncryptFinal_ex(cipher, sealed + size, &done);
        EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_GET_TAG, 16, sealed + size);
    }
}

static void answer(int queue, uint32_t id, const unsigned char *packet, int length) {
    struct nfqnl_msg_verdict_hdr accept = {htonl(NF_ACCEPT), id};
    struct nlattr payload = {sizeof payload + length, NFQA_PAYLOAD};
    struct request r;
    begin(&r, NFQNL_MSG_VERDICT, queue);
    put(&r, NFQA_VERDICT_HDR, &accept, sizeof accept);
    struct iovec parts[] = {{r.bytes, r.length}, {&payload, sizeof payload}, {(void *)packet, NLA_ALIGN(length)}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = length ? 3 : 1};
    ((struct nlmsghdr *)r.bytes)->nlmsg_len = r.length + (length ? sizeof payload + NLA_ALIGN(length) : 0);
    sendmsg(netlink, &message, 0);
}

int main(int argc, char **argv) {
    static unsigned char message[1 << 18];
    if (argc < 3 || (!strcmp(argv[1], "seal") && argc < 4)) {
        fputs("floor rewrite QUEUE | floor seal QUEUE RECORD\n", stderr);
        return 2;
    }
    int queue = atoi(argv[2]), record = strcmp(argv[1], "seal") ? 0 : atoi(argv[3]), room = 32 << 20;
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    netlink = socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
    if (netlink < 0 || bind(netlink, (void *)&kernel, sizeof kernel)) {
        perror("netlink");
        return 1;
    }
    setsockopt(netlink, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    bind_queue(queue);
    sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &(struct sched_param){.sched_priority = 1});

    unsigned char key[32] = {1}, nonce[12] = {0};
    EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
    EVP_EncryptInit_ex(cipher, EVP_aes_256_gcm(), NULL, key, nonce);
    puts("ready");
    fflush(stdout);

    for (struct pollfd ready = {netlink, POLLIN, 0};;) {
        int received = recv(netlink, message, sizeof message, MSG_DONTWAIT), length = 0;
        if (received < 0) poll(&ready, 1, -1);
        if (received < 20 || ((struct nlmsghdr *)message)->nlmsg_type != (NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET))
            continue;
        unsigned char *packet = NULL;
        uint32_t id = 0;
        for (int at = 20; at + 4 <= received;) {
            struct nlattr *attribute = (void *)(message + at);
            if (attribute->nla_type == NFQA_PACKET_HDR) memcpy(&id, attribute + 1, 4);
            if (attribute->nla_type == NFQA_PAYLOAD) packet = (void *)(attribute + 1), length = attribute->nla_len - 4;
            at += NLA_ALIGN(attribute->nla_len);
        }
        if (length >= 40) {
            int tcp_at = packet[0] >> 4 == 4 ? (packet[0] & 15) * 4 : 40;
            int payload_at = tcp_at + (packet[tcp_at + 12] >> 4) * 4;
            if (record) seal(cipher, packet + payload_at, length - payload_at, record);
            write_checksum(packet, length, tcp_at);
        }
        answer(queue, id, packet, length);
    }
}
