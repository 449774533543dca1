// The work on Go, with one processor (GOMAXPROCS=1). What the words and answers mean is in measure/src/lib.rs.
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const batch = 1000

func number(place int) int {
	n, err := strconv.Atoi(os.Args[place])
	if err != nil {
		panic(err)
	}
	return n
}

func answer(what string, value float64) { fmt.Printf("%s %.2f\n", what, value) }

func answerEach(what string, start time.Time, count int) {
	answer(what, float64(time.Since(start).Nanoseconds())/float64(count))
}

func worked() float64 {
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return float64(usage.Utime.Nano() + usage.Stime.Nano())
}

// memory gives what this process has, in bytes: resident, and page tables.
func memory() (resident, pageTables float64) {
	file, err := os.Open("/proc/self/status")
	if err != nil {
		panic(err)
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if fields[0] == "VmRSS:" || fields[0] == "VmPTE:" {
			kib, _ := strconv.Atoi(fields[1])
			if fields[0] == "VmRSS:" {
				resident = float64(kib) * 1024
			} else {
				pageTables = float64(kib) * 1024
			}
		}
	}
	return
}

func spawn(tasks int) {
	start := time.Now()
	var all sync.WaitGroup
	for i := 0; i < tasks/batch; i++ {
		all.Add(batch)
		for k := 0; k < batch; k++ {
			go func() { all.Done() }()
		}
		all.Wait()
	}
	answerEach("ns", start, tasks)
}

func switches(tasks, rounds int) {
	var all sync.WaitGroup
	all.Add(tasks)
	for place := 0; place < tasks; place++ {
		go func(first bool) {
			runtime.Gosched()
			start := time.Now()
			for i := 0; i < rounds; i++ {
				runtime.Gosched()
			}
			if first {
				answerEach("ns", start, rounds*tasks)
			}
			all.Done()
		}(place == 0)
	}
	all.Wait()
}

func ring(tasks, hops int) {
	channels := make([]chan int, tasks)
	for i := range channels {
		channels[i] = make(chan int)
	}
	done := make(chan bool)
	for i := range channels {
		go func(from, to chan int) {
			for value := range from {
				if value == 0 {
					done <- true
					return
				}
				to <- value - 1
			}
		}(channels[i], channels[(i+1)%tasks])
	}
	runtime.Gosched()
	start := time.Now()
	channels[0] <- hops
	<-done
	answerEach("ns", start, hops)
}

func idle(tasks int) {
	never, all, ran := make(chan bool), make(chan bool), 0
	resident, pageTables := memory()
	start := time.Now()
	for i := 0; i < tasks; i++ {
		go func() {
			if ran++; ran == tasks {
				all <- true
			}
			<-never
			if ran--; ran == 0 {
				all <- true
			}
		}()
	}
	<-all
	answerEach("make", start, tasks)
	nowResident, nowPageTables := memory()
	answer("resident", (nowResident-resident)/float64(tasks))
	answer("page_tables", (nowPageTables-pageTables)/float64(tasks))
	start = time.Now()
	close(never)
	<-all
	answerEach("end", start, tasks)
}

func sleeps(tasks int) {
	var all sync.WaitGroup
	all.Add(tasks)
	for i := 0; i < tasks; i++ {
		random := uint64(i)*2654435761 + 88172645463325252
		go func() {
			for nap := 0; nap < 10; nap++ {
				random ^= random << 13
				random ^= random >> 7
				random ^= random << 17
				time.Sleep(time.Duration(random%100000) * time.Microsecond)
			}
			all.Done()
		}()
	}
	all.Wait()
	answer("cpu", worked())
}

func timeouts(count int) {
	start := time.Now()
	for i := 0; i < count; i++ {
		if !time.AfterFunc(time.Hour, func() {}).Stop() {
			panic("an hour is not over")
		}
	}
	answerEach("ns", start, count)
}

func echo() {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	answer("port", float64(listener.Addr().(*net.TCPAddr).Port))
	for {
		stream, err := listener.Accept()
		if err != nil {
			panic(err)
		}
		go func() { // Go sets TCP_NODELAY by itself.
			defer stream.Close()
			buffer := make([]byte, 1024)
			for {
				read, err := stream.Read(buffer)
				if err != nil {
					return
				}
				if _, err := stream.Write(buffer[:read]); err != nil {
					return
				}
			}
		}()
	}
}

func main() {
	runtime.GOMAXPROCS(1)
	var limit syscall.Rlimit
	syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
	limit.Cur = limit.Max
	syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	switch os.Args[1] {
	case "spawn":
		spawn(number(2))
	case "switch":
		if os.Args[5] == "random" {
			fmt.Println("unsupported")
			return
		}
		switches(number(2), number(3))
	case "ring":
		ring(number(2), number(3))
	case "idle":
		idle(number(2))
	case "sleeps":
		sleeps(number(2))
	case "timeouts":
		timeouts(number(2))
	case "echo":
		echo()
	}
}
