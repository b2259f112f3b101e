// pion's RTP parser and sample builder (it orders, and knows what is missing), then a table for the samples and a WAV
// file a stream: pion itself has neither. One goroutine, one port. The sample builder hands a packet on when the next
// one has come: the last one of a stream stays in it.
package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/pkg/media/samplebuilder"
)

const late = 10 // packets: 200 ms

// A packet of G.711 is a whole sample.
type whole struct{}

func (whole) Unmarshal(payload []byte) ([]byte, error) { return payload, nil }
func (whole) IsPartitionHead([]byte) bool              { return true }
func (whole) IsPartitionTail(bool, []byte) bool        { return true }

type stream struct {
	builder *samplebuilder.SampleBuilder
	file    *os.File
	writer  *bufio.Writer
	bytes   uint32
}

var linear [256][2]byte // G.711 µ-law, little-endian

func init() {
	for i := range linear {
		u := ^byte(i)
		value := ((int16(u&15)<<3 + 132) << (u >> 4 & 7)) - 132
		if u&128 != 0 {
			value = -value
		}
		binary.LittleEndian.PutUint16(linear[i][:], uint16(value))
	}
}

func header(bytes uint32) []byte {
	head := []byte("RIFF....WAVEfmt ....................data....")
	binary.LittleEndian.PutUint32(head[4:], 36+bytes)
	binary.LittleEndian.PutUint32(head[16:], 16)
	binary.LittleEndian.PutUint16(head[20:], 1)
	binary.LittleEndian.PutUint16(head[22:], 1)
	binary.LittleEndian.PutUint32(head[24:], 8000)
	binary.LittleEndian.PutUint32(head[28:], 16000)
	binary.LittleEndian.PutUint16(head[32:], 2)
	binary.LittleEndian.PutUint16(head[34:], 16)
	binary.LittleEndian.PutUint32(head[40:], bytes)
	return head
}

func open(directory string, ssrc uint32) *stream {
	file, err := os.Create(filepath.Join(directory, fmt.Sprintf("%d.wav", ssrc-1)))
	if err != nil {
		log.Fatal(err)
	}
	s := &stream{builder: samplebuilder.New(late, whole{}, 8000), file: file, writer: bufio.NewWriterSize(file, 1<<16)}
	s.writer.Write(header(0))
	return s
}

func (s *stream) take(packet *rtp.Packet) {
	s.builder.Push(packet)
	var samples [2 * 1500]byte
	for sample := s.builder.Pop(); sample != nil; sample = s.builder.Pop() {
		for i, code := range sample.Data {
			samples[2*i], samples[2*i+1] = linear[code][0], linear[code][1]
		}
		s.writer.Write(samples[:2*len(sample.Data)])
		s.bytes += uint32(2 * len(sample.Data))
	}
}

func main() {
	directory := os.Args[1]
	socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		log.Fatal(err)
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		log.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		if syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUFFORCE, 8<<20) != nil {
			syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 8<<20)
		}
	})
	var stopping atomic.Bool
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		<-stop
		stopping.Store(true)
		socket.SetReadDeadline(time.Now())
	}()
	fmt.Printf("{\"port\": %d, \"pids\": [%d]}\n", socket.LocalAddr().(*net.UDPAddr).Port, os.Getpid())

	streams := map[uint32]*stream{}
	datagrams := 0
	buffer := make([]byte, 2048)
	for !stopping.Load() {
		n, _, err := socket.ReadFromUDPAddrPort(buffer)
		if err != nil {
			continue
		}
		datagrams++
		packet := &rtp.Packet{}
		if packet.Unmarshal(append([]byte(nil), buffer[:n]...)) != nil {
			continue // the sample builder keeps packets: each needs its own memory
		}
		s := streams[packet.SSRC]
		if s == nil {
			s = open(directory, packet.SSRC)
			streams[packet.SSRC] = s
		}
		s.take(packet)
	}
	for _, s := range streams {
		s.writer.Flush()
		s.file.WriteAt(header(s.bytes), 0)
		s.file.Close()
	}
	fmt.Printf("{\"datagrams\": %d}\n", datagrams)
}
