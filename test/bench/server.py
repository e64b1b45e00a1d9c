# A server with much memory, and a client that keeps its connection open. What is
# written to /run/ask goes to the server over that connection, and /run/answer
# gives a secret, a sum of the memory and the word.
import os, socket, sys, zlib

address = ("127.0.0.1", 7000)
listener = socket.create_server(address)
for fifo in "/run/ask", "/run/answer":
    os.mkfifo(fifo)

if os.fork() == 0:
    connection = socket.create_connection(address).makefile("rw")
    while True:
        with open("/run/ask") as ask:
            connection.write(ask.readline())
            connection.flush()
        with open("/run/answer", "w") as answer:
            answer.write(connection.readline())

heap = bytearray(int(sys.argv[1]) << 20)
block = os.urandom(1 << 20)
for at in range(0, len(heap), len(block)):
    heap[at:at + len(block)] = block
    heap[at:at + 8] = os.urandom(8)
secret = os.urandom(8).hex()

with open("/root/large", "wb") as large:
    for _ in range(int(sys.argv[2])):
        large.write(block)
    os.fsync(large.fileno())

connection = listener.accept()[0].makefile("rw")
while True:
    word = connection.readline().strip()
    connection.write("%s %08x %s\n" % (secret, zlib.crc32(heap), word))
    connection.flush()
