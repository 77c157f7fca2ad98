/** Other gateways before the same engines, as an operator names them: `host:port`, or a host alone. */
import { isIP } from "node:net"
import { z } from "zod"
import { UserError } from "../errors.ts"
import { isReference, readSecret } from "./secrets.ts"

export interface PeerAddress {
  /** A name with several addresses is as many gateways. No brackets. */
  host: string
  port: number
}

export const PEER_PORT = 8090
/** A shorter one could be found out by trying. */
const LEAST_SECRET = 16

export const PEER_FORM = `must be host:port, or a host alone (port ${PEER_PORT})`
export const SECRET_FORM =
  "must be env:NAME (a variable of the environment) or file:PATH, not the secret itself"

/** Throws UserError. */
export function parsePeer(text: string, where: string): PeerAddress {
  const peer = peerIn(text.trim())
  if (peer !== null) return peer
  throw new UserError(
    `${where}: ${JSON.stringify(text.slice(0, 200))} is no address of a gateway; it ${PEER_FORM}`,
  )
}

function peerIn(text: string): PeerAddress | null {
  if (isIP(text) === 6) return { host: text, port: PEER_PORT }
  const [, bracketed, name, digits] = /^(?:\[([^\]]+)\]|([\w.-]+))(?::(\d{1,5}))?$/.exec(text) ?? []
  const port = digits === undefined ? PEER_PORT : Number(digits)
  if (port < 1 || port > 65_535) return null
  if (bracketed !== undefined) return isIP(bracketed) === 6 ? { host: bracketed, port } : null
  return name === undefined ? null : { host: name, port }
}

const peerSchema = z.string({ error: PEER_FORM }).transform((text, context): PeerAddress => {
  const peer = peerIn(text.trim())
  if (peer !== null) return peer
  context.addIssue({ code: "custom", message: PEER_FORM })
  return z.NEVER
})

export const peersSchema = z.array(peerSchema, { error: "must be a list of gateways: host:port" })

export const peerSecretSchema = z.string({ error: SECRET_FORM }).refine(isReference, SECRET_FORM)

/** What the gateways of one service have in common, and others do not know. Throws UserError. */
export function readPeerSecret(reference: string, environment: Record<string, string | undefined>): string {
  let secret: string
  try {
    secret = readSecret(reference, environment)
  } catch (error) {
    throw new UserError(`--peer-secret: ${(error as Error).message}`)
  }
  if (secret.length >= LEAST_SECRET) return secret
  throw new UserError(
    `--peer-secret: what ${reference} has is shorter than ${LEAST_SECRET} characters; take openssl rand -hex 32`,
  )
}
