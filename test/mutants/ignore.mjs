/** What the mutation tester leaves alone: texts of assertions, which only people read, and the `check` methods, which are
 * tests themselves. */
export const strykerPlugins = [
  {
    kind: "Ignore",
    name: "assertions",
    value: {
      shouldIgnore(path) {
        if (path.isClassMethod() && path.node.key.name === "check") return "an invariant check"
        const call = path.parentPath
        const isText = path.listKey === "arguments" && path.key === 1 && call.node.callee?.name === "assert"
        if (isText) return "the text of an assertion"
      },
    },
  },
]
