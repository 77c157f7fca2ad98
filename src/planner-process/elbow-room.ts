/** The planner's thread keeps off the cores that its engines schedule on. An engine that tells of a step goes on with it at once; a
 * kernel may wake the planner on the very core that told it, and put it before the engine there (precedence.ts), which then waits
 * for all of the planning that should have been beside it. */
import koffi from "koffi"

/** The cores that the calling thread may run on. */
export interface ThreadCores {
  get(): number[]
  /** False where that is not allowed. */
  set(cores: readonly number[]): boolean
}

export class ElbowRoom {
  readonly #cores: ThreadCores | null
  /** Those of the process, as it was started. */
  readonly #all: readonly number[]
  readonly #engines = new Map<string, number>()

  constructor(cores: ThreadCores | null = linuxCores()) {
    this.#cores = cores
    this.#all = cores?.get() ?? []
  }

  /** The engine was on this core when it last told of a step. */
  engineOn(engine: string, core: number): void {
    if (this.#engines.get(engine) === core) return
    this.#engines.set(engine, core)
    this.#apply()
  }

  gone(engine: string): void {
    if (this.#engines.delete(engine)) this.#apply()
  }

  #apply(): void {
    const taken = new Set(this.#engines.values())
    const free = this.#all.filter((core) => !taken.has(core))
    // Engines on all there are: any is as good as another.
    this.#cores?.set(free.length > 0 ? free : this.#all)
  }
}

/** As many as a cpu_set_t has bits for. */
const MOST_CORES = 1024

/** Null where there is no such thing. */
function linuxCores(): ThreadCores | null {
  if (process.platform !== "linux") return null
  try {
    const libc = koffi.load("libc.so.6")
    const get = libc.func("int sched_getaffinity(int pid, size_t size, _Out_ uint8_t *mask)")
    const set = libc.func("int sched_setaffinity(int pid, size_t size, uint8_t *mask)")
    const size = MOST_CORES / 8
    // pid 0: the calling thread.
    return {
      get() {
        const mask = new Uint8Array(size)
        if (get(0, size, mask) < 0) return []
        return Array.from({ length: MOST_CORES }, (_, core) => core).filter(
          (core) => (mask[core >> 3]! >> (core & 7)) & 1,
        )
      },
      set(cores) {
        const mask = new Uint8Array(size)
        for (const core of cores) mask[core >> 3]! |= 1 << (core & 7)
        return set(0, size, mask) === 0
      },
    }
  } catch {
    return null
  }
}
