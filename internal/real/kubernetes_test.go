//go:build real

package kubernetes

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"awe4lb/discovery"
	"awe4lb/internal/lbtest"
	"awe4lb/internal/real/follow"
)

var away = flag.Duration("down", time.Minute, "how long the server is down")

// watch follows a service of the cluster.
func watch(t *testing.T, c *cluster, o discovery.KubernetesOptions, first string) *follow.Pool {
	t.Helper()
	o.URL, o.Token, o.TLS.CA = c.api, discovery.Secret{Value: token}, c.ca()
	s, err := discovery.NewKubernetes(o)
	if err != nil {
		t.Fatal(err)
	}
	return follow.Start(t, s, first)
}

// TestEndpoints follows pods through what happens to them, and to the API server.
func TestEndpoints(t *testing.T) {
	c := newCluster(t)
	c.do("POST", slicesPath, slice("other", "other-1", endpoint("10.9.0.1", "ready")))
	c.do("POST", slicesPath, slice("web", "web-1", endpoint("10.0.0.1", "ready"), endpoint("10.0.0.2", "unknown"), endpoint("10.0.0.3", "unready")))
	const two = "10.0.0.1:8080/1 10.0.0.2:8080/1"
	w := watch(t, c, discovery.KubernetesOptions{Service: "web", Port: "http", Wait: 2 * time.Second}, two)
	w.Step(two+" 10.0.0.4:8080/1", func() {
		c.do("POST", slicesPath, slice("web", "web-2", endpoint("10.0.0.4", "ready"), endpoint("10.0.0.1", "unready")))
	})
	w.Step("10.0.0.1:8080/0 10.0.0.2:8080/1 10.0.0.4:8080/1", func() {
		c.do("PUT", slicesPath+"/web-1", slice("web", "web-1", endpoint("10.0.0.1", "draining"), endpoint("10.0.0.2", "ready")))
	})
	w.Step("10.0.0.2:8080/1 10.0.0.4:8080/1", func() {
		c.do("PUT", slicesPath+"/web-1", slice("web", "web-1", endpoint("10.0.0.2", "ready")))
	})
	w.Step("10.0.0.2:8080/1", func() { c.do("DELETE", slicesPath+"/web-2", nil) })

	// Watches end by their timeout and go on, with nothing reported and nothing failed.
	reports, failed := w.Reports(), len(w.Status().Sources[0].Counters.Failed)
	time.Sleep(5 * time.Second)
	if now := w.Status().Sources[0]; w.Reports() != reports || len(now.Counters.Failed) != failed || now.State != discovery.Fresh {
		t.Errorf("%d reports and %v failures while nothing happened", w.Reports()-reports, now.Counters.Failed)
	}

	// An empty answer is not believed.
	w.Step("10.0.0.2:8080/1", func() {
		c.do("DELETE", slicesPath+"/web-1", nil)
		w.State(discovery.Holding)
	})
	w.Step(two, func() {
		c.do("POST", slicesPath, slice("web", "web-1", endpoint("10.0.0.1", "ready"), endpoint("10.0.0.2", "ready")))
	})
	w.State(discovery.Fresh)

	// The server is restarted, is down for a while, and etcd forgets: the list stays, and what changed shows when it is back.
	for i, forget := range []bool{false, true} {
		w.Step(follow.Show(w.List()), func() {
			c.down()
			w.State(discovery.Failing)
			if forget {
				time.Sleep(*away)
				c.compact()
			}
			c.up()
			w.State(discovery.Fresh)
		})
		next := endpoint(fmt.Sprintf("10.0.0.%d", 5+i), "ready")
		w.Step(follow.Show(w.List())+fmt.Sprintf(" 10.0.0.%d:8080/1", 5+i), func() {
			c.do("POST", slicesPath, slice("web", fmt.Sprint("more-", i), next))
		})
	}

	// A change while the server forgets what was before it: compacted under a watch.
	w.Step("10.0.0.2:8080/1 10.0.0.5:8080/1 10.0.0.6:8080/1", func() {
		c.compact()
		c.do("PUT", slicesPath+"/web-1", slice("web", "web-1", endpoint("10.0.0.2", "ready")))
	})
}

// TestNodePorts follows nodes and what makes them fit.
func TestNodePorts(t *testing.T) {
	c := newCluster(t)
	c.do("POST", "/api/v1/namespaces/default/services", object{"metadata": object{"name": "web", "labels": object{"app": "web"}},
		"spec": object{"type": "NodePort", "ports": []object{{"name": "http", "port": 80, "nodePort": 30080}}}})
	c.node("n1", "10.1.0.1", "True")
	c.node("n2", "10.1.0.2", "True")
	c.node("n3", "10.1.0.3", "False")
	c.do("POST", slicesPath, slice("web", "web-1", endpoint("10.0.0.1", "ready"), endpoint("10.0.0.2", "ready")))
	const two = "10.1.0.1:30080/1 10.1.0.2:30080/1"
	w := watch(t, c, discovery.KubernetesOptions{Service: "web", Port: "80", NodePort: true, Wait: 2 * time.Second}, two)
	watch(t, c, discovery.KubernetesOptions{Selector: "app=web", NodePort: true, NodeAddress: "ExternalIP"}, "203.0.113.1:30080/1 203.0.113.2:30080/1").Stop()
	w.Step(two+" 10.1.0.3:30080/1", func() { c.node("n3", "10.1.0.3", "True") })
	w.Step("10.1.0.1:30080/1 10.1.0.3:30080/1", func() { c.node("n2", "10.1.0.2", "Unknown") })
	w.Step("10.1.0.1:30080/2", func() {
		c.do("PATCH", "/api/v1/namespaces/default/services/web", object{"spec": object{"externalTrafficPolicy": "Local"}})
	})
	w.Step("10.1.0.1:30080/1", func() { c.do("PUT", slicesPath+"/web-1", slice("web", "web-1", endpoint("10.0.0.1", "ready"))) })
	w.Step("10.1.0.1:30080/1", func() {
		c.down()
		w.State(discovery.Failing)
		c.up()
		w.State(discovery.Fresh)
	})
	w.Step("10.1.0.1:30081/1", func() {
		c.do("PATCH", "/api/v1/namespaces/default/services/web", object{"spec": object{"ports": []object{{"name": "http", "port": 80, "nodePort": 30081}}}})
	})
}

// TestRights applies the manifests of docs/kubernetes.md and follows with nothing but these rights, as a service account whose
// token a plugin of a kubeconfig prints.
func TestRights(t *testing.T) {
	c := newCluster(t)
	c.do("POST", "/api/v1/namespaces/default/serviceaccounts", object{"metadata": object{"name": "awe4lb"}})
	c.do("POST", "/api/v1/namespaces/default/services", object{"metadata": object{"name": "web"},
		"spec": object{"type": "NodePort", "ports": []object{{"name": "http", "port": 80, "nodePort": 30080}}}})
	c.node("n1", "10.1.0.1", "True")
	c.do("POST", slicesPath, slice("web", "web-1", endpoint("10.0.0.1", "ready")))
	_, b := c.try("POST", "/api/v1/namespaces/default/serviceaccounts/awe4lb/token", object{"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": object{}})
	var request struct {
		Status struct{ Token, ExpirationTimestamp string }
	}
	if err := json.Unmarshal(b, &request); err != nil || request.Status.Token == "" {
		t.Fatalf("%v %s", err, b)
	}
	printed, _ := json.Marshal(object{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": request.Status})
	plugin := c.write("plugin", []byte("#!/bin/sh\ncat "+c.write("credential", printed)+"\n"))
	if err := os.Chmod(plugin, 0o700); err != nil {
		t.Fatal(err)
	}
	config := c.write("kubeconfig", []byte(`
current-context: a
contexts: [{name: a, context: {cluster: a, user: a}}]
clusters: [{name: a, cluster: {server: "`+c.api+`", certificate-authority: certs/apiserver.crt}}]
users: [{name: a, user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: ./plugin, interactiveMode: Never}}}]
`))
	docs, err := os.ReadFile("../../../docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	manifests := strings.Split(string(docs), "```yaml\n")[1:]
	apply := func(kind, path string) {
		for _, m := range manifests {
			if m, _, _ = strings.Cut(m, "```"); strings.Contains(m, "kind: "+kind+"\n") {
				c.do("POST", "/apis/rbac.authorization.k8s.io/v1/"+path, yaml(m))
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
		{discovery.KubernetesOptions{}, [2]string{"Role", "namespaces/default/roles"}, [2]string{"RoleBinding", "namespaces/default/rolebindings"}, "10.0.0.1:8080/1"},
		{discovery.KubernetesOptions{NodePort: true}, [2]string{"ClusterRole", "clusterroles"}, [2]string{"ClusterRoleBinding", "clusterrolebindings"}, "10.1.0.1:30080/1"},
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
			return err == nil && follow.Show(l.Backends) == e.want
		})
	}
}
