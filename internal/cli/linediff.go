package cli

import (
	"fmt"
	"io"
	"strings"

	"awe4lb/internal/human"
)

// diffLine is a line of a text, or of two.
type diffLine struct {
	sign byte // ' ', '-', '+'; '~': lines are left out here
	n    int  // its number, in the new text unless it is gone
	text string
}

// Lines around a difference that are shown too; and how much the search for the shortest way from one text to the other may
// cost, in pairs of lines.
const (
	diffContext = 2
	maxDiff     = 4 << 20
)

// lineDiff returns what differs between two texts, with a little of what is around. What is between the first and the last
// difference is compared line by line, where that is not too much; else all of it counts as different.
func lineDiff(from, to string) []diffLine {
	a, b := lines(from), lines(to)
	first := 0
	for first < len(a) && first < len(b) && a[first] == b[first] {
		first++
	}
	endA, endB := len(a), len(b)
	for endA > first && endB > first && a[endA-1] == b[endB-1] {
		endA, endB = endA-1, endB-1
	}
	if first == endA && first == endB {
		return nil
	}
	var all []diffLine
	for i := max(first-diffContext, 0); i < first; i++ {
		all = append(all, diffLine{' ', i + 1, a[i]})
	}
	all = append(all, middle(a[first:endA], b[first:endB], first)...)
	for i := endB; i < min(endB+diffContext, len(b)); i++ {
		all = append(all, diffLine{' ', i + 1, b[i]})
	}
	return shortened(all)
}

func lines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// middle compares by the longest common subsequence; before is the number of lines before both.
func middle(a, b []string, before int) (out []diffLine) {
	// common[i][j] is how many lines a[i:] and b[j:] have in common.
	var common [][]int32
	if len(a)*len(b) <= maxDiff {
		common = make([][]int32, len(a)+1)
		for i := range common {
			common[i] = make([]int32, len(b)+1)
		}
		for i := len(a) - 1; i >= 0; i-- {
			for j := len(b) - 1; j >= 0; j-- {
				if a[i] == b[j] {
					common[i][j] = common[i+1][j+1] + 1
				} else {
					common[i][j] = max(common[i+1][j], common[i][j+1])
				}
			}
		}
	}
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case common != nil && i < len(a) && j < len(b) && a[i] == b[j]:
			out = append(out, diffLine{' ', before + j + 1, b[j]})
			i, j = i+1, j+1
		case i < len(a) && (j == len(b) || common == nil || common[i+1][j] >= common[i][j+1]):
			out = append(out, diffLine{'-', before + i + 1, a[i]})
			i++
		default:
			out = append(out, diffLine{'+', before + j + 1, b[j]})
			j++
		}
	}
	return out
}

// shortened leaves out what is the same and far from what is not.
func shortened(all []diffLine) (out []diffLine) {
	near := make([]bool, len(all))
	for i, l := range all {
		if l.sign != ' ' {
			for k := max(i-diffContext, 0); k <= min(i+diffContext, len(all)-1); k++ {
				near[k] = true
			}
		}
	}
	for i, l := range all {
		switch {
		case near[i]:
			out = append(out, l)
		case i > 0 && near[i-1]:
			out = append(out, diffLine{sign: '~'})
		}
	}
	return out
}

func printLines(w io.Writer, all []diffLine) {
	for _, l := range all {
		if l.sign == '~' {
			fmt.Fprintln(w, "       …")
			continue
		}
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%c %5d  %s", l.sign, l.n, human.Printable(l.text)), " "))
	}
}
