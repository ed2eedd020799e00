//go:build race

package engine

// raceEnabled says that everything is some ten times slower, so that tests may move less.
const raceEnabled = true
