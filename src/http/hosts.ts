/** Which hosts a server answers for. A page of another site can have its own name resolve to this machine (DNS rebinding) and so read
 * a server that listens for this machine alone: the header `host` then has the page's name. */
import { isIP } from "node:net"
import { userError } from "../errors.ts"

export interface HostRules {
  /** The address that the server listens on. */
  address: string
  /** Names besides; `.example.com` stands for all below it, `*` for any. */
  allowed: readonly string[]
}

const LOCAL = ["localhost", "127.0.0.1", "::1"]

/** Throws UserError for a header of another host. Where the server is for other machines and no names are given, any will do. */
export function checkHost(header: string | undefined, { address, allowed }: HostRules): void {
  if (header === undefined || allowed.includes("*")) return
  if (allowed.length === 0 && !isLoopback(address)) return
  const host = hostIn(header)
  const names = isLoopback(address) ? [...LOCAL, address, ...allowed] : [address, ...allowed]
  if (names.some((name) => fits(host, name.toLowerCase()))) return
  throw userError("host_not_allowed", { host: host.slice(0, 100) })
}

/** What `checkHost` throws, or nothing. */
export function hostFault(header: string | undefined, rules: HostRules): Error | undefined {
  try {
    checkHost(header, rules)
    return undefined
  } catch (error) {
    return error as Error
  }
}

const fits = (host: string, name: string): boolean =>
  name.startsWith(".") ? host.endsWith(name) || host === name.slice(1) : host === name

/** Without its port, in small letters, IPv6 without brackets. */
function hostIn(header: string): string {
  const match = /^\[([^\]]*)\](?::\d*)?$|^([^:]*)(?::\d*)?$/.exec(header.trim())
  return (match?.[1] ?? match?.[2] ?? header).toLowerCase().replace(/\.$/, "")
}

function isLoopback(address: string): boolean {
  return address === "localhost" || address === "::1" || (isIP(address) === 4 && address.startsWith("127."))
}
