//go:build real

package real

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"awe4lb/discovery"
	"awe4lb/internal/lbtest"
)

func TestKubernetes(t *testing.T) {
	w := newKube(t)
	w.do("POST", slicesPath, slice("other", "other-1", endpoint("10.9.0.1", "ready")))
	s := tell(t, w)
	s.whole()
	s.happens("one drains", func(now map[int]string) { now[2] = entry(w.put(2, "draining"), 0) })
	s.happens("and is ready after all", func(now map[int]string) { now[2] = entry(w.put(2, "ready"), 1) })
	s.outage("the server is down, and etcd forgets", syscall.SIGKILL, func() { w.compact() })
	s.happens("one changes, compacted under the watch", func(now map[int]string) {
		w.compact()
		now[4] = w.change(4, 1)
	})
}

// pods are what is in a world whose pods have the addresses 10.0.0.n.
func pods(numbers ...int) map[int]string {
	now := map[int]string{}
	for _, n := range numbers {
		now[n] = pod(n, 1)
	}
	return now
}

func pod(n, weight int) string { return entry(fmt.Sprintf("10.0.0.%d:8080", n), weight) }

// TestKubernetesEndpoints follows pods through what happens to them, several in a slice, and to the API server.
func TestKubernetesEndpoints(t *testing.T) {
	w := newKube(t)
	w.do("POST", slicesPath, slice("other", "other-1", endpoint("10.9.0.1", "ready")))
	w.do("POST", slicesPath, slice("web", "web-1", endpoint("10.0.0.1", "ready"), endpoint("10.0.0.2", "unknown"), endpoint("10.0.0.3", "unready")))
	s := tellStrictly(t, w, pods(1, 2))
	s.happens("one comes in another slice", func(now map[int]string) {
		w.do("POST", slicesPath, slice("web", "web-2", endpoint("10.0.0.4", "ready"), endpoint("10.0.0.1", "unready")))
		now[4] = pod(4, 1)
	})
	s.happens("one drains", func(now map[int]string) {
		w.do("PUT", slicesPath+"/web-1", slice("web", "web-1", endpoint("10.0.0.1", "draining"), endpoint("10.0.0.2", "ready")))
		now[1] = pod(1, 0)
	})
	s.happens("and goes", func(now map[int]string) {
		w.do("PUT", slicesPath+"/web-1", slice("web", "web-1", endpoint("10.0.0.2", "ready")))
		delete(now, 1)
	})
	s.happens("a slice goes", func(now map[int]string) { w.do("DELETE", slicesPath+"/web-2", nil); delete(now, 4) })
	s.quiet("watches end by their timeout and go on", 5*time.Second)

	s.happens("the last slice goes, which is not believed", func(map[int]string) {
		w.do("DELETE", slicesPath+"/web-1", nil)
		s.state(discovery.Holding)
	})
	s.happens("two are there", func(now map[int]string) {
		w.do("POST", slicesPath, slice("web", "web-1", endpoint("10.0.0.1", "ready"), endpoint("10.0.0.2", "ready")))
		now[1] = pod(1, 1)
	})
	s.state(discovery.Fresh)

	// The list stays, and what changed shows when the server is back.
	s.outage("the server is killed", syscall.SIGKILL, func() {})
	s.happens("another comes", func(now map[int]string) {
		w.do("POST", slicesPath, slice("web", "more-1", endpoint("10.0.0.5", "ready")))
		now[5] = pod(5, 1)
	})
	s.outage("the server was down, and etcd forgets", syscall.SIGKILL, func() { s.stays("the server is down", *down); w.compact() })
	s.happens("another comes", func(now map[int]string) {
		w.do("POST", slicesPath, slice("web", "more-2", endpoint("10.0.0.6", "ready")))
		now[6] = pod(6, 1)
	})
	s.happens("one goes, compacted under the watch", func(now map[int]string) {
		w.compact()
		w.do("PUT", slicesPath+"/web-1", slice("web", "web-1", endpoint("10.0.0.2", "ready")))
		delete(now, 1)
	})
}

// TestKubernetesNodePorts follows nodes and what makes them fit.
func TestKubernetesNodePorts(t *testing.T) {
	w := newKube(t)
	w.do("POST", "/api/v1/namespaces/default/services", object{"metadata": object{"name": "web", "labels": object{"app": "web"}},
		"spec": object{"type": "NodePort", "ports": []object{{"name": "http", "port": 80, "nodePort": 30080}}}})
	w.node("n1", "10.1.0.1", "True")
	w.node("n2", "10.1.0.2", "True")
	w.node("n3", "10.1.0.3", "False")
	w.do("POST", slicesPath, slice("web", "web-1", endpoint("10.0.0.1", "ready"), endpoint("10.0.0.2", "ready")))
	w.options = discovery.KubernetesOptions{Selector: "app=web", NodePort: true, NodeAddress: "ExternalIP"}
	tellStrictly(t, w, map[int]string{1: "203.0.113.1:30080 weight=1", 2: "203.0.113.2:30080 weight=1"})

	w.options = discovery.KubernetesOptions{Service: "web", Port: "80", NodePort: true, Wait: 2 * time.Second}
	s := tellStrictly(t, w, map[int]string{1: "10.1.0.1:30080 weight=1", 2: "10.1.0.2:30080 weight=1"})
	s.happens("a node becomes ready", func(now map[int]string) { w.node("n3", "10.1.0.3", "True"); now[3] = "10.1.0.3:30080 weight=1" })
	s.happens("one is not heard of", func(now map[int]string) { w.node("n2", "10.1.0.2", "Unknown"); delete(now, 2) })
	s.happens("only nodes with pods", func(now map[int]string) {
		w.do("PATCH", "/api/v1/namespaces/default/services/web", object{"spec": object{"externalTrafficPolicy": "Local"}})
		now[1] = "10.1.0.1:30080 weight=2"
		delete(now, 3)
	})
	s.happens("a pod goes", func(now map[int]string) {
		w.do("PUT", slicesPath+"/web-1", slice("web", "web-1", endpoint("10.0.0.1", "ready")))
		now[1] = "10.1.0.1:30080 weight=1"
	})
	s.outage("the server is killed", syscall.SIGKILL, func() {})
	s.happens("another port", func(now map[int]string) {
		w.do("PATCH", "/api/v1/namespaces/default/services/web", object{"spec": object{"ports": []object{{"name": "http", "port": 80, "nodePort": 30081}}}})
		now[1] = "10.1.0.1:30081 weight=1"
	})
}

// TestKubernetesRights applies the manifests of docs/kubernetes.md and follows with nothing but these rights, as a service account whose
// token a plugin of a kubeconfig prints.
func TestKubernetesRights(t *testing.T) {
	w := newKube(t)
	w.do("POST", "/api/v1/namespaces/default/serviceaccounts", object{"metadata": object{"name": "awe4lb"}})
	w.do("POST", "/api/v1/namespaces/default/services", object{"metadata": object{"name": "web"},
		"spec": object{"type": "NodePort", "ports": []object{{"name": "http", "port": 80, "nodePort": 30080}}}})
	w.node("n1", "10.1.0.1", "True")
	w.do("POST", slicesPath, slice("web", "web-1", endpoint("10.0.0.1", "ready")))
	_, b := w.try("POST", "/api/v1/namespaces/default/serviceaccounts/awe4lb/token", object{"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": object{}})
	var request struct {
		Status struct{ Token, ExpirationTimestamp string }
	}
	if err := json.Unmarshal(b, &request); err != nil || request.Status.Token == "" {
		t.Fatalf("%v %s", err, b)
	}
	printed, _ := json.Marshal(object{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": request.Status})
	plugin := w.write("plugin", []byte("#!/bin/sh\ncat "+w.write("credential", printed)+"\n"))
	if err := os.Chmod(plugin, 0o700); err != nil {
		t.Fatal(err)
	}
	config := w.write("kubeconfig", []byte(`
current-context: a
contexts: [{name: a, context: {cluster: a, user: a}}]
clusters: [{name: a, cluster: {server: "`+w.api+`", certificate-authority: certs/apiserver.crt}}]
users: [{name: a, user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: ./plugin, interactiveMode: Never}}}]
`))
	docs, err := os.ReadFile("../../docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	manifests := strings.Split(string(docs), "```yaml\n")[1:]
	apply := func(kind, path string) {
		for _, m := range manifests {
			if m, _, _ = strings.Cut(m, "```"); strings.Contains(m, "kind: "+kind+"\n") {
				w.do("POST", "/apis/rbac.authorization.k8s.io/v1/"+path, yaml(m))
				return
			}
		}
		t.Fatalf("docs/kubernetes.md has no %s", kind)
	}
	for _, e := range []struct {
		o             discovery.KubernetesOptions
		role, binding [2]string
		want          string
	}{
		{discovery.KubernetesOptions{}, [2]string{"Role", "namespaces/default/roles"}, [2]string{"RoleBinding", "namespaces/default/rolebindings"}, "10.0.0.1:8080 weight=1"},
		{discovery.KubernetesOptions{NodePort: true}, [2]string{"ClusterRole", "clusterroles"}, [2]string{"ClusterRoleBinding", "clusterrolebindings"}, "10.1.0.1:30080 weight=1"},
	} {
		e.o.Service, e.o.Port, e.o.Kubeconfig = "web", "http", config
		s, err := discovery.NewKubernetes(e.o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Fetch(t.Context()); err == nil || !strings.Contains(err.Error(), "status 403; want the right") {
			t.Errorf("without rights: %v", err)
		}
		apply(e.role[0], e.role[1])
		apply(e.binding[0], e.binding[1])
		lbtest.EventuallyIn(t, 20*time.Second, "the list "+e.want, func() bool {
			l, err := s.Fetch(t.Context())
			return err == nil && slices.Equal(entries(l.Backends), []string{e.want})
		})
	}
}
