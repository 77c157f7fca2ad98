/** The few figures of a Prometheus text that are of interest. */

const LINE = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/

export class Gauges {
  #values = new Map<string, number>()
  #labels = new Map<string, string>()

  constructor(text: string) {
    for (const line of text.split("\n")) {
      if (line.startsWith("#")) continue
      const found = LINE.exec(line)
      if (found === null) continue
      const [, name, labels = "", value] = found as unknown as [string, string, string | undefined, string]
      const number = Number(value)
      if (!Number.isFinite(number)) continue
      // One series an engine core, where there are several.
      this.#values.set(name, (this.#values.get(name) ?? 0) + number)
      this.#labels.set(name, labels)
    }
  }

  /** Summed over its series; null when it is not there. */
  of(...names: readonly string[]): number | null {
    for (const name of names) {
      const value = this.#values.get(name)
      if (value !== undefined) return value
    }
    return null
  }

  /** A number that a series has as a label. */
  label(name: string, label: string): number | null {
    const value = new RegExp(`(?:^|,)\\s*${label}="([^"]*)"`).exec(this.#labels.get(name) ?? "")?.[1]
    return value === undefined || value === "" || !Number.isFinite(Number(value)) ? null : Number(value)
  }
}
