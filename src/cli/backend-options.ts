/** Options of `serve` where other servers compute: a gateway has no engine of its own. */
import type { Command } from "commander"
import { type BackendConfig, parseInlineBackend } from "../config/backends.ts"
import { PEER_PORT, type PeerAddress, parsePeer, SECRET_FORM } from "../config/peers.ts"
import { isReference } from "../config/secrets.ts"
import { UserError } from "../errors.ts"
import { wholeNumber } from "./numbers.ts"

export interface BackendOptions {
  backend?: BackendConfig[]
  backendFile?: string
  backendTimeout: number
  /** Processes. */
  gateways: number
  /** Other gateways before the same backends. */
  peer?: PeerAddress[]
  peerFile?: string
  peerPort?: number
  /** Where their secret is: env:NAME or file:PATH. */
  peerSecret?: string
}

/** Of an engine in this process: said beside backends, they cannot be meant. */
const ENGINE_OPTIONS = [
  ...[
    "model",
    "policy",
    "threads",
    "maxSequences",
    "context",
    "kvTokens",
    "kvUnified",
    "flashAttention",
    "kvType",
  ],
  ...["maxBatchTokens", "margin", "maxBatchMs", "bestEffortMs", "tokenBudget", "admission", "speculate"],
  ...["maxSpeculation", "gpuLayers", "library", "engine", "profile", "stepTimeout", "replicas", "device"],
]

/** Of commands with a gateway. */
export function addGatewaysOption(command: Command): Command {
  return command.option(
    "--gateways <n>",
    "processes of the gateway that share its address, for as many cores; a crash takes one of them",
    wholeNumber(1, 64),
    1,
  )
}

export function addBackendOptions(command: Command): Command {
  return addGatewaysOption(command)
    .option(
      "--backend <kind=URL>",
      "a server that computes, in place of an engine here; kinds slos-serve, vllm, sglang, llama-server, openai (left out: " +
        "found out); then ,weight=2 ,model=theirs:its ,key_env=NAME ,priority; once for each; also in the config",
      (text: string, before: BackendConfig[] = []) => [...before, parseInlineBackend(text, "--backend")],
    )
    .option("--backend-file <file>", "a YAML list of more of them, read again whenever it changes")
    .option(
      "--backend-timeout <s>",
      "a backend that begins no answer for so long, or stands still for a fifth of it, has lost it",
      wholeNumber(1, 86_400),
      300,
    )
    .option(
      "--peer <host:port>",
      "another gateway before the same backends, on another machine: each then knows what the other does; a name with several " +
        "addresses is as many, this gateway among them or not; once for each; also in the config",
      (text: string, before: PeerAddress[] = []) => [...before, parsePeer(text, "--peer")],
    )
    .option("--peer-file <file>", "a YAML list of more of them, read again whenever it changes")
    .option(
      "--peer-port <number>",
      `port for peers, on the address of --host (default, where there are peers: ${PEER_PORT})`,
      wholeNumber(1, 65_535),
    )
    .option(
      "--peer-secret <where>",
      "what all peers have in common, and others do not: env:NAME (a variable that has it) or file:PATH",
      peerSecret,
    )
}

function peerSecret(text: string): string {
  if (isReference(text)) return text
  // Not shown: it may be the secret.
  throw new UserError(`--peer-secret ${SECRET_FORM}`)
}

/** Throws UserError for options that no gateway has. */
export function checkGatewayOptions(command: Command): void {
  const isSaid = (name: string) => ["cli", "env", "config"].includes(command.getOptionValueSource(name) ?? "")
  const said = ENGINE_OPTIONS.find(isSaid)
  const source = said === undefined ? undefined : command.getOptionValueSource(said)
  if (said === undefined || source === undefined) return
  const flag = said.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
  const by = source === "cli" ? "" : source === "env" ? " (of the environment)" : " (of the config file)"
  throw new UserError(
    `--${flag}${by} is of an engine, and with backends there is none here; leave one of the two out`,
  )
}
