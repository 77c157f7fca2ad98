/** Connections between gateways: TLS by a key that both have (PSK), so that a stranger is neither heard nor told anything, and no
 * certificates are needed. */
import { hkdfSync } from "node:crypto"
import { connect, createServer, type Server, type TLSSocket } from "node:tls"

/** Fresh keys for each connection, and ciphers that are fast with and without help of the processor. Node has such keys for TLS 1.2. */
const TLS = {
  ciphers: "ECDHE-PSK-CHACHA20-POLY1305:ECDHE-PSK-AES256-CBC-SHA384",
  minVersion: "TLSv1.2",
  maxVersion: "TLSv1.2",
} as const
const IDENTITY = "slos-serve"
const KEY_BYTES = 32
/** A stranger that connects and says nothing is let go of, ms. */
const HANDSHAKE_MS = 5000
/** Connections, of strangers included. */
const MOST_CONNECTIONS = 1024

export interface PeerKey {
  readonly bytes: Buffer
}

export function peerKey(secret: string): PeerKey {
  return {
    bytes: Buffer.from(hkdfSync("sha256", secret, "", "slos-serve: gateways tell each other", KEY_BYTES)),
  }
}

/** `stranger`: it has not the key, or speaks no TLS. */
export function serverFor(
  key: PeerKey,
  onPeer: (socket: TLSSocket) => void,
  stranger: (address: string, why: string) => void,
): Server {
  const server = createServer({
    ...TLS,
    pskCallback: (_socket, identity) => (identity === IDENTITY ? key.bytes : null),
    handshakeTimeout: HANDSHAKE_MS,
    // Small messages that are of no use later.
    noDelay: true,
  })
  server.maxConnections = MOST_CONNECTIONS
  server.on("secureConnection", onPeer)
  server.on("tlsClientError", (error, socket) => {
    stranger(socket.remoteAddress ?? "an address that is gone", error.message)
    socket.destroy()
  })
  return server
}

export function connectTo({ host, port }: { host: string; port: number }, key: PeerKey): TLSSocket {
  const socket = connect({
    ...TLS,
    ...{ host, port },
    pskCallback: () => ({ psk: key.bytes, identity: IDENTITY }),
    // There is no certificate: its key says what it is.
    checkServerIdentity: () => undefined,
  })
  socket.setNoDelay(true)
  return socket
}

/** Of a socket that is connected: its other end is on this machine. */
export function isSameMachine({ remoteAddress, localAddress }: TLSSocket): boolean {
  return remoteAddress !== undefined && remoteAddress === localAddress
}
