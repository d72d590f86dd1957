/* A server and a client of SCTP, by libusrsctp over a raw socket at one address.
 *
 *   sctp serve NAME ADDRESS PORT    answers each message with NAME, a blank and the message
 *   sctp ask FROM TO PORT           sends each line that it reads, prints each answer, and
 *                                   shuts the association down in the end
 *
 * The server says "ready", the client "up", its answers, and "down" once it is shut down.
 * The stack takes and makes whole SCTP packets, with their CRC32c; what is here puts them
 * into IP packets, because the stack would neither use an address on `lo`, as a virtual one
 * is on a real server, nor keep quiet about others. */

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <usrsctp.h>

enum {
	LONGEST = 65536,
	/* Seconds after which a client is killed that nobody answers. */
	PATIENCE = 30,
};

/* The raw socket, and who was met last: a server has one client at a time. */
static int wire;
static struct sockaddr_storage peer;
static socklen_t peer_length;

static _Noreturn void fail(const char *what)
{
	perror(what);
	exit(1);
}

static socklen_t parse(const char *text, struct sockaddr_storage *address)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)address;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)address;

	memset(address, 0, sizeof(*address));
	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		return sizeof(*v4);
	}
	if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		return sizeof(*v6);
	}
	fprintf(stderr, "%s is no address\n", text);
	exit(1);
}

/* Sends a packet that the stack has made. */
static int leave(void *self, void *packet, size_t length, uint8_t tos, uint8_t set_df)
{
	(void)self, (void)tos, (void)set_df;
	/* What is lost is sent again. */
	sendto(wire, packet, length, 0, (struct sockaddr *)&peer, peer_length);
	return 0;
}

/* Hands the stack what comes. */
static void *take(void *self)
{
	static char packet[LONGEST];

	for (;;) {
		struct sockaddr_storage from;
		socklen_t from_length = sizeof(from);
		ssize_t length = recvfrom(wire, packet, sizeof(packet), 0,
					  (struct sockaddr *)&from, &from_length);
		/* Of IPv4 the header comes with it. */
		ssize_t header = from.ss_family == AF_INET ? 4 * (packet[0] & 15) : 0;

		if (length < 0)
			fail("recvfrom");
		memcpy(&peer, &from, peer_length = from_length);
		if (from.ss_family == AF_INET6)
			((struct sockaddr_in6 *)&peer)->sin6_port = 0;
		if (length > header)
			usrsctp_conninput(self, packet + header, length - header, 0);
	}
}

static struct sockaddr_conn at(const char *port)
{
	struct sockaddr_conn address = {
		.sconn_family = AF_CONN,
		.sconn_port = htons(atoi(port)),
		.sconn_addr = &wire,
	};

	return address;
}

/* A socket at an address. */
static struct socket *open_at(const char *text, const char *port)
{
	struct sockaddr_storage own;
	socklen_t length = parse(text, &own);
	struct sockaddr_conn address = at(port);
	struct socket *sock;
	pthread_t taker;

	wire = socket(own.ss_family, SOCK_RAW, IPPROTO_SCTP);
	if (wire < 0)
		fail("socket");
	if (bind(wire, (struct sockaddr *)&own, length) < 0)
		fail("bind");
	usrsctp_init(0, leave, NULL);
	/* It listens by sockets of its own, too: what is not for them it is not to answer. */
	usrsctp_sysctl_set_sctp_blackhole(2);
	usrsctp_register_address(&wire);
	sock = usrsctp_socket(AF_CONN, SOCK_STREAM, IPPROTO_SCTP, NULL, NULL, 0, NULL);
	if (sock == NULL)
		fail("usrsctp_socket");
	if (usrsctp_bind(sock, (struct sockaddr *)&address, sizeof(address)) < 0)
		fail("usrsctp_bind");
	if (pthread_create(&taker, NULL, take, &wire) != 0)
		fail("pthread_create");
	return sock;
}

/* The length of the next message; 0 once the peer has shut the association down. */
static size_t receive(struct socket *sock, char *message, size_t room)
{
	size_t length = 0;

	for (;;) {
		struct sockaddr_storage from;
		socklen_t from_length = sizeof(from);
		struct sctp_rcvinfo info;
		socklen_t info_length = sizeof(info);
		unsigned int type = 0;
		int flags = 0;
		ssize_t came = usrsctp_recvv(sock, message + length, room - length,
					     (struct sockaddr *)&from, &from_length, &info,
					     &info_length, &type, &flags);

		if (came < 0)
			fail("usrsctp_recvv");
		length += came;
		if (came == 0 || (flags & MSG_EOR))
			return length;
	}
}

static void send_all(struct socket *sock, const char *message, size_t length)
{
	ssize_t sent = usrsctp_sendv(sock, message, length, NULL, 0, NULL, 0,
				     SCTP_SENDV_NOINFO, 0);

	if (sent != (ssize_t)length)
		fail("usrsctp_sendv");
}

static void serve(const char *name, const char *address, const char *port)
{
	static char message[LONGEST];
	struct socket *listener = open_at(address, port);
	size_t start = sprintf(message, "%.99s ", name);

	if (usrsctp_listen(listener, 1) < 0)
		fail("usrsctp_listen");
	puts("ready");
	for (;;) {
		struct socket *sock = usrsctp_accept(listener, NULL, NULL);
		size_t length;

		if (sock == NULL)
			fail("usrsctp_accept");
		while ((length = receive(sock, message + start, sizeof(message) - start)) != 0)
			send_all(sock, message, start + length);
		usrsctp_close(sock);
	}
}

static void ask(const char *from, const char *to, const char *port)
{
	static char message[LONGEST];
	struct sockaddr_conn there = at(port);
	struct socket *sock;

	alarm(PATIENCE);
	peer_length = parse(to, &peer);
	sock = open_at(from, "0");
	if (usrsctp_connect(sock, (struct sockaddr *)&there, sizeof(there)) < 0)
		fail("usrsctp_connect");
	puts("up");
	while (fgets(message, sizeof(message), stdin) != NULL) {
		size_t length = strcspn(message, "\n");

		send_all(sock, message, length);
		length = receive(sock, message, sizeof(message));
		printf("%.*s\n", (int)length, message);
	}
	if (usrsctp_shutdown(sock, SHUT_WR) < 0)
		fail("usrsctp_shutdown");
	if (receive(sock, message, sizeof(message)) != 0)
		fail("an answer to nothing");
	puts("down");
}

int main(int count, char **words)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (count == 5 && strcmp(words[1], "serve") == 0) {
		serve(words[2], words[3], words[4]);
	} else if (count == 5 && strcmp(words[1], "ask") == 0) {
		ask(words[2], words[3], words[4]);
		return 0;
	}
	fprintf(stderr, "usage: sctp serve NAME ADDRESS PORT | sctp ask FROM TO PORT\n");
	return 2;
}
