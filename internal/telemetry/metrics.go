package telemetry

import (
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics is the registry of one running service. It is safe for concurrent use.
//
// Labels are drawn from small fixed sets: a route's pattern, never an address; a meter's code, never
// an account.
type Metrics struct {
	registry *prometheus.Registry
	requests *prometheus.HistogramVec
	calls    *prometheus.HistogramVec // to the payment provider

	mu       sync.RWMutex
	observer map[kindOfRequest]prometheus.Observer // of requests, so that their labels are looked up once
}

// kindOfRequest is what requests are counted by: as many kinds as there are routes, methods and classes.
type kindOfRequest struct {
	route, method string
	class         int // of the status
}

// NewMetrics returns a registry with the measures of the process and of HTTP.
func NewMetrics(version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		observer: map[kindOfRequest]prometheus.Observer{},
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "accrue_http_request_duration_seconds",
			Help:    "Time to answer a request, by route, method and status class.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10},
		}, []string{"route", "method", "status"}),
		calls: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "accrue_provider_call_duration_seconds",
			Help:    "Time that a call to the payment provider took, by call and what came of it.",
			Buckets: []float64{.01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"call", "outcome"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "accrue_build_info", Help: "Always 1; the label says which version runs.",
		ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), m.requests, m.calls, build)
	return m
}

// ObserveRequest counts one answered request. route is the route's pattern.
func (m *Metrics) ObserveRequest(route, method string, status int, took time.Duration) {
	kind := kindOfRequest{route, method, status / 100}
	m.mu.RLock()
	o, ok := m.observer[kind]
	m.mu.RUnlock()
	if !ok {
		o = m.requests.WithLabelValues(route, method, strconv.Itoa(kind.class)+"xx")
		m.mu.Lock()
		m.observer[kind] = o
		m.mu.Unlock()
	}
	o.Observe(took.Seconds())
}

// ObserveProviderCall counts one call to the payment provider: payment.Told.
func (m *Metrics) ObserveProviderCall(call, outcome string, took time.Duration) {
	m.calls.WithLabelValues(call, outcome).Observe(took.Seconds())
}

// Labels tell measures of one name apart.
type Labels = prometheus.Labels

// Gauge adds a measure that is read when it is asked for. value must be safe for concurrent use.
func (m *Metrics) Gauge(name, help string, labels Labels, value func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, value))
}

// Total is Gauge for a measure that only grows.
func (m *Metrics) Total(name, help string, labels Labels, value func() float64) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}, value))
}

// Counter adds a counter with a label and returns the function that adds to it. It begins at 0 for each of the values, which
// are all that there are: a rate of what has not happened yet is 0, and not unknown.
func (m *Metrics) Counter(name, help, label string, values ...string) func(value string, n int) {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	m.registry.MustRegister(c)
	of := map[string]prometheus.Counter{}
	for _, v := range values {
		of[v] = c.WithLabelValues(v)
	}
	return func(value string, n int) { of[value].Add(float64(n)) }
}

// Handler serves the measures in Prometheus' format.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}
