/** Starts worker processes, each with its share of what the server was given, on the device that is its. */
import { type ChildProcess, spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { moduleBeside } from "../beside.ts"
import { UserError } from "../errors.ts"
import type { ServeOptions } from "./serve-options.ts"
import { defaultThreads } from "./threads.ts"

const WORKER = fileURLToPath(moduleBeside(import.meta.url, "serve-worker"))

/** Where a worker runs: any cores, some of them, or a GPU. */
export type Device = { kind: "cpu"; cores: string | null } | { kind: "gpu"; index: string }

/** `cpu`, `cpu:0-3` (cores as taskset has them, with + for its commas), `gpu:0`. */
export function parseDevices(text: string): Device[] {
  return text.split(",").map((one) => {
    const found = /^(?:(cpu)(?::([\d+-]+))?|gpu:([\w-]+))$/.exec(one.trim())
    if (found === null)
      throw new UserError(`--device: ${one} is none of cpu, cpu:<cores> (0-3, 0+2) and gpu:<index>`)
    if (found[1] === undefined) return { kind: "gpu", index: found[3]! }
    return { kind: "cpu", cores: found[2]?.replaceAll("+", ",") ?? null }
  })
}

/** A worker's own part: threads, sequences, KV and places are divided, so that many replicas take what one would. */
export function shareOf(options: ServeOptions, replicas: number, device: Device | undefined): ServeOptions {
  const part = (whole: number) => Math.max(1, Math.floor(whole / replicas))
  const { threads = defaultThreads(), kvTokens, context = 0, maxSequences } = options
  if (kvTokens !== undefined && part(kvTokens) < context)
    throw new UserError(
      `--kv-tokens ${kvTokens} for ${replicas} replicas is ${part(kvTokens)} each, less than --context ${context}`,
    )
  return {
    ...options,
    threads: part(threads),
    ...(maxSequences !== undefined && { maxSequences: part(maxSequences) }),
    maxQueue: options.maxQueue,
    ...(kvTokens !== undefined && { kvTokens: part(kvTokens) }),
    ...(device?.kind === "cpu" && { gpuLayers: 0 }),
  }
}

/** With an IPC channel, and a pipe for the wire. */
export function spawnWorker(device: Device | undefined): ChildProcess {
  const pinned = device?.kind === "cpu" && device.cores !== null ? ["taskset", "-c", device.cores] : []
  const [command, ...args] = [...pinned, process.execPath, ...process.execArgv, WORKER]
  return spawn(command!, args, {
    stdio: ["ignore", "inherit", "inherit", "ipc", "pipe"],
    env: { ...process.env, ...(device?.kind === "gpu" && visibleGpu(device.index)) },
  })
}

/** As CUDA, ROCm and Vulkan builds of llama.cpp read it. */
function visibleGpu(index: string): NodeJS.ProcessEnv {
  return { CUDA_VISIBLE_DEVICES: index, HIP_VISIBLE_DEVICES: index, GGML_VK_VISIBLE_DEVICES: index }
}
